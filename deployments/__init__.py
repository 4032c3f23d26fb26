"""What a Prefect server needs around prefect.yaml: pools, limits, schedules, automations; and the embedded runner."""
