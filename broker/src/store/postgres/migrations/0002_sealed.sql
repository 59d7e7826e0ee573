-- What lies in files, whole and verified: entries below `until`, of which those below `dropped` are gone from here but for
-- the ones that the state is folded from. Only these two functions change it, and only the sealer's role may call them.
CREATE TABLE sealed (id smallint PRIMARY KEY CHECK (id = 1), until bigint NOT NULL, dropped bigint NOT NULL CHECK (dropped <= until));
INSERT INTO sealed VALUES (1, 0, 0);

CREATE FUNCTION seal(since bigint, upto bigint) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = :schema, pg_temp AS $$
DECLARE known bigint; size_now bigint;
BEGIN
    SELECT sealed.until INTO known FROM sealed WHERE id = 1 FOR UPDATE;
    SELECT coalesce(max(size), 0) INTO size_now FROM head;
    IF known <> since OR upto <= since OR upto > size_now THEN
        RAISE EXCEPTION 'entries % to % cannot be sealed where % of % are', since, upto, known, size_now USING ERRCODE = 'data_corrupted';
    END IF;
    UPDATE sealed SET until = upto WHERE id = 1;
    -- From now on a program that knows nothing of this would miss entries.
    UPDATE migrations SET needs = 2 WHERE version = 2 AND needs < 2;
END $$;

CREATE FUNCTION drop_sealed(places bigint) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = :schema, pg_temp AS $$
DECLARE bound bigint; first bigint; beyond bigint;
BEGIN
    SELECT until, dropped INTO bound, first FROM sealed WHERE id = 1 FOR UPDATE;
    beyond := least(first + places, bound);
    DELETE FROM entries WHERE idx >= first AND idx < beyond AND NOT EXISTS (SELECT 1 FROM folds WHERE folds.idx = entries.idx);
    UPDATE sealed SET dropped = beyond WHERE id = 1;
    RETURN beyond < bound;
END $$;

REVOKE ALL ON FUNCTION seal(bigint, bigint), drop_sealed(bigint) FROM PUBLIC;
