-- The log and what lies beside it. Brokers add to it: no broker's role may change or remove an entry.
CREATE TABLE entries (idx bigint PRIMARY KEY, leaf bytea NOT NULL, bytes bytea NOT NULL);
CREATE TABLE folds (idx bigint PRIMARY KEY);
CREATE TABLE subtrees (level smallint, idx bigint, hash bytea NOT NULL, PRIMARY KEY (level, idx));
-- One row that each commit replaces: room in its page keeps all of its versions there.
CREATE TABLE head (id smallint PRIMARY KEY CHECK (id = 1), origin text NOT NULL, size bigint NOT NULL,
                   state bigint NOT NULL, time_ms bigint NOT NULL, frontier bytea NOT NULL, checkpoint bytea NOT NULL)
    WITH (fillfactor = 10, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);
CREATE TABLE live (exp_ms bigint, idx bigint, PRIMARY KEY (exp_ms, idx));
CREATE TABLE marks (minute bigint, mark bytea, PRIMARY KEY (minute, mark));
CREATE TABLE objects (digest bytea PRIMARY KEY, bytes bytea NOT NULL);
CREATE TABLE keys (key text PRIMARY KEY, sealed bytea NOT NULL, certificate bytea);
