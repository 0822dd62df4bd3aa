"""An engine's process: how it is started, commanded, watched and ended. Knows no engine."""
