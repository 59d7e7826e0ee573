-- What the role of brokers may do: each migration ends with it.
GRANT USAGE ON SCHEMA :schema TO :service;
GRANT SELECT ON ALL TABLES IN SCHEMA :schema TO :service;
GRANT INSERT ON entries, folds, subtrees, closed, head, live, marks, objects, keys TO :service;
GRANT UPDATE ON head, keys TO :service;
GRANT DELETE ON live, marks TO :service;
