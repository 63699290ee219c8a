"""Parts of `scripts/bench`: what is compared (`targets`), what is measured (`measures`), what is told
(`report`)."""
