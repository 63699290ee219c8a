"""The harness: a real OpenClaw gateway and a fake model server on one machine; and the tests that use it."""
