"""The live page: what guards do now, in a browser. It reads their logs, and can slow no operation."""
