"""The fault laboratory: real processes, real brokers, faults on purpose, and what must hold afterwards."""
