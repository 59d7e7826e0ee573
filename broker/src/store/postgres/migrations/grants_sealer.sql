-- What the role that seals may do, where one was named.
GRANT USAGE ON SCHEMA :schema TO :sealer;
GRANT SELECT ON migrations, sealed TO :sealer;
GRANT EXECUTE ON FUNCTION seal(bigint, bigint), drop_sealed(bigint) TO :sealer;
