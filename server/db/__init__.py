"""The one database: tables, connections, migrations, and how an outage is told from an error."""
