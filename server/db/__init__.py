"""The one database: tables, connections, locks, migrations, and how an outage is told from other errors."""
