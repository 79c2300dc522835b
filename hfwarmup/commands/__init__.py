"""The commands, one a file; `hfwarmup.cli` gathers them. What a command needs beyond plain Python it imports inside."""
