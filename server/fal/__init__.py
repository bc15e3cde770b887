"""fal's wire, as values: schemas, data URIs, headers, hosts. No database, no job, no network."""
