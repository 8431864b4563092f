"""What every other room stands on: errors, units, records, digests, statistics, the registry. No torch in here."""
