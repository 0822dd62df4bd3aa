"""An engine's process: how it is started, asked, watched and ended. Knows no engine."""
