"""What this run will do: durations, the plan, the config. Standard library and ruamel.yaml only."""
