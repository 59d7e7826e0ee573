-- Logs that follow each other in one store: shards. The entries of the n-th begin at n * 2^40; how many are closed is the
-- number of the one that is written.
CREATE TABLE closed (shard integer PRIMARY KEY, origin text NOT NULL, size bigint NOT NULL, state bigint NOT NULL,
                     time_ms bigint NOT NULL, frontier bytea NOT NULL, checkpoint bytea NOT NULL);

-- What is sealed, by shard; both columns are places in the store.
ALTER TABLE sealed DROP CONSTRAINT sealed_id_check;
ALTER TABLE sealed ALTER COLUMN id TYPE integer;
ALTER TABLE sealed RENAME COLUMN id TO shard;
UPDATE sealed SET shard = 0;

CREATE OR REPLACE FUNCTION seal(since bigint, upto bigint) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = :schema, pg_temp AS $$
DECLARE place integer := (since >> 40)::integer; known bigint; beyond bigint;
BEGIN
    INSERT INTO sealed VALUES (place, since >> 40 << 40, since >> 40 << 40) ON CONFLICT DO NOTHING;
    SELECT sealed.until INTO known FROM sealed WHERE shard = place FOR UPDATE;
    SELECT coalesce((SELECT size FROM closed WHERE shard = place),
                    (SELECT size FROM head WHERE place = (SELECT count(*) FROM closed)), 0) + (since >> 40 << 40) INTO beyond;
    IF known <> since OR upto <= since OR upto > beyond THEN
        RAISE EXCEPTION 'entries % to % cannot be sealed where % of % are', since, upto, known, beyond USING ERRCODE = 'data_corrupted';
    END IF;
    UPDATE sealed SET until = upto WHERE shard = place;
    -- From now on a program that knows nothing of this would miss entries.
    UPDATE migrations SET needs = 3 WHERE version = 3 AND needs < 3;
END $$;

CREATE OR REPLACE FUNCTION drop_sealed(places bigint) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = :schema, pg_temp AS $$
DECLARE which integer; bound bigint; first bigint; beyond bigint;
BEGIN
    SELECT shard, until, dropped INTO which, bound, first FROM sealed WHERE dropped < until ORDER BY shard LIMIT 1 FOR UPDATE;
    IF which IS NULL THEN
        RETURN false;
    END IF;
    beyond := least(first + places, bound);
    DELETE FROM entries WHERE idx >= first AND idx < beyond AND NOT EXISTS (SELECT 1 FROM folds WHERE folds.idx = entries.idx);
    UPDATE sealed SET dropped = beyond WHERE shard = which;
    RETURN EXISTS (SELECT 1 FROM sealed WHERE dropped < until);
END $$;
