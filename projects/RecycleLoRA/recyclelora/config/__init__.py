"""LazyConfigs: overrides, validation, and what may change when a run resumes."""
