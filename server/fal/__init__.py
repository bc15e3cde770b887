"""fal's wire, as values: schemas, answers, data URIs, headers, hosts. No database, no job, no network."""
