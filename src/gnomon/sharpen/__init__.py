"""Making a task faster without making it wrong: recipes that are applied, verified, measured again, and judged."""
