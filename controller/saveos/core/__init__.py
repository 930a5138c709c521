"""What every feature stands on: settings, database, errors, security, clock, pages, i18n. Knows no feature."""
