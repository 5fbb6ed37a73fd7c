-- Changes behind larder's back: names of what a commit changed, written by the commit itself, delivered and removed by larder.
CREATE TABLE larder_outbox (
    id     BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    names  TEXT[] NOT NULL,           -- as POST /cache/invalidate takes them for tags; '*' is everything
    due_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp() -- not delivered before: the writer may be about to do so itself
);

-- A value as it stands in a name: everything but unreserved characters (RFC 3986, section 2.3) percent-escaped, byte by byte.
CREATE OR REPLACE FUNCTION larder_escape(value text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN value COLLATE "C" ~ '^[A-Za-z0-9._~-]*$' THEN value ELSE (
        SELECT string_agg(
            CASE WHEN chr(byte) COLLATE "C" ~ '[A-Za-z0-9._~-]' THEN chr(byte) ELSE '%' || upper(lpad(to_hex(byte), 2, '0')) END,
            '' ORDER BY at)
        FROM (
            SELECT at, get_byte(convert_to(value, 'UTF8'), at) AS byte
            FROM generate_series(0, octet_length(convert_to(value, 'UTF8')) - 1) AS at
        ) AS bytes
    ) END
$$;

-- What format() gives for a value of this type, as larder's parameters have it.
CREATE OR REPLACE FUNCTION larder_text(formatted text, kind regtype) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE kind
        WHEN 'boolean'::regtype THEN CASE formatted WHEN 't' THEN 'true' WHEN 'f' THEN 'false' ELSE '' END
        WHEN 'character'::regtype THEN rtrim(formatted, ' ')
        ELSE formatted
    END
$$;

-- Runs after each statement that changes a watched table, as the owner of the outbox: whoever may write the table needs nothing
-- else. One row of the outbox has a thousand names at most. NULL formats as nothing. By format() and not by a cast, since whoever
-- owns the table says what its casts run.
CREATE OR REPLACE FUNCTION larder_note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    own text := current_setting('larder.schema');
    named text;
    places tid[];
    noted tid[] := nullif(current_setting('larder.noted', true), '')::tid[];
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        EXECUTE format('INSERT INTO %I.larder_outbox (names) VALUES (ARRAY[''*'']) RETURNING ARRAY[ctid]', own) INTO places;
    ELSE
        SELECT string_agg(
            CASE WHEN parts[1] IS NULL THEN quote_literal(parts[2]) ELSE
                format('%1$I.larder_escape(%1$I.larder_text(format(''%%s'', changed.%2$I), pg_typeof(changed.%2$I)))', own, parts[1])
            END,
            ' || ' ORDER BY at)
        INTO named
        FROM regexp_matches(TG_ARGV[0], '\{([^{}]+)\}|([^{}]+)', 'g') WITH ORDINALITY AS piece (parts, at);
        EXECUTE format(
            'WITH kept AS (
                 INSERT INTO %I.larder_outbox (names)
                 SELECT array_agg(name) FROM (
                     SELECT name, (row_number() OVER () - 1) / 1000 AS chunk FROM (SELECT DISTINCT name FROM (%s) AS each) AS one
                 ) AS numbered
                 GROUP BY chunk
                 RETURNING ctid AS place
             )
             SELECT array_agg(place) FROM kept',
            own,
            format(
                -- A row that moves from one name to another changes what both stand for.
                CASE TG_OP
                    WHEN 'INSERT' THEN 'SELECT %1$s AS name FROM larder_new AS changed'
                    WHEN 'DELETE' THEN 'SELECT %1$s AS name FROM larder_old AS changed'
                    ELSE 'SELECT %1$s AS name FROM larder_old AS changed UNION ALL SELECT %1$s FROM larder_new AS changed'
                END,
                named))
        INTO places;
        IF places IS NULL THEN
            RETURN NULL;
        END IF;
    END IF;
    -- For larder_take_back, until this transaction ends. Past a hundred it is hardly a write of larder's, and then its names are
    -- delivered twice: a list that each of a million statements copies would cost more.
    IF coalesce(cardinality(noted), 0) < 100 THEN
        PERFORM set_config('larder.noted', (coalesce(noted, '{}') || places)::text, true);
    END IF;
    PERFORM pg_notify('larder_outbox', '');
    RETURN NULL;
END
$$;

-- Takes back what the triggers left in this very transaction, as far as its names are among these: their writer delivers them. It goes
-- by their places and scans nothing: what one serializable transaction scans conflicts with what all others insert there.
CREATE OR REPLACE FUNCTION larder_take_back(given text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    own text := current_setting('larder.schema');
    noted tid[] := nullif(current_setting('larder.noted', true), '')::tid[];
BEGIN
    IF noted IS NOT NULL THEN
        EXECUTE format(
            'DELETE FROM %I.larder_outbox WHERE ctid = ANY ($1) AND xmin = pg_current_xact_id()::xid AND names <@ $2', own)
        USING noted, given;
    END IF;
END
$$;

-- From now on a commit that changes rows of this table invalidates the names of the template: SELECT larder_watch('users', 'user:{id}').
-- Returns whether that is new. A table may have several templates. What a template may be is what a resource's tag may be.
CREATE OR REPLACE FUNCTION larder_watch(watched regclass, template text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    own text := current_setting('larder.schema');
    wrong text;
    missing text;
    event text;
BEGIN
    wrong := CASE
        WHEN coalesce(octet_length(template), 0) NOT BETWEEN 1 AND 200 THEN 'is empty or longer than 200 bytes'
        WHEN template = '*' THEN 'is "*", the name of everything'
        WHEN template ~ '[\u0001-\u0020\u007F-\u00A0\u1680\u2000-\u200A\u2028\u2029\u202F\u205F\u3000]'
            THEN 'has a space or a control character'
        WHEN regexp_replace(template, '\{[^{}]+\}', '', 'g') ~ '[{}]'
            THEN 'has a brace without its other half, or an empty pair'
    END;
    IF wrong IS NOT NULL THEN
        RAISE invalid_parameter_value USING MESSAGE = 'larder: the template ' || wrong;
    ELSIF watched IS NULL OR (SELECT relkind NOT IN ('r', 'p') FROM pg_class WHERE oid = watched) THEN
        RAISE wrong_object_type USING MESSAGE = format('larder: %s is no table: watch the tables behind it', watched);
    ELSIF watched = format('%I.larder_outbox', own)::regclass THEN
        RAISE wrong_object_type USING MESSAGE = 'larder: the outbox itself cannot be watched';
    END IF;
    SELECT string_agg(DISTINCT quote_ident(parts[1]), ', ') INTO missing
    FROM regexp_matches(template, '\{([^{}]+)\}', 'g') AS piece (parts)
    WHERE NOT EXISTS (
        SELECT FROM pg_attribute WHERE attrelid = watched AND attname = parts[1] AND attnum > 0 AND NOT attisdropped);
    IF missing IS NOT NULL THEN
        RAISE undefined_column USING MESSAGE = format('larder: %s has no column %s', watched, missing);
    END IF;
    -- Two that ask for the same at once: the second one is to find it done. The first number is the text "lard".
    PERFORM pg_advisory_xact_lock(1818326628, watched::oid::bigint::bit(32)::int);
    IF EXISTS (SELECT FROM pg_trigger WHERE tgrelid = watched AND tgname = 'larder_insert_' || md5(template)) THEN
        RETURN false;
    END IF;
    FOREACH event IN ARRAY ARRAY['insert', 'update', 'delete', 'truncate'] LOOP
        EXECUTE format(
            'CREATE TRIGGER %I AFTER %s ON %s %s FOR EACH STATEMENT EXECUTE FUNCTION %I.larder_note(%L)',
            'larder_' || event || '_' || md5(template),
            event,
            watched,
            CASE event
                WHEN 'insert' THEN 'REFERENCING NEW TABLE AS larder_new'
                WHEN 'update' THEN 'REFERENCING OLD TABLE AS larder_old NEW TABLE AS larder_new'
                WHEN 'delete' THEN 'REFERENCING OLD TABLE AS larder_old'
            END,
            own,
            template);
    END LOOP;
    RETURN true;
END
$$;

-- Takes back larder_watch. Returns whether there was anything to take back.
CREATE OR REPLACE FUNCTION larder_unwatch(watched regclass, template text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    called text;
    watches boolean := false;
BEGIN
    FOR called IN
        SELECT tgname FROM pg_trigger
        WHERE tgrelid = watched AND tgname ~ '^larder_(insert|update|delete|truncate)_' AND right(tgname::text, 32) = md5(template)
    LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', called, watched);
        watches := true;
    END LOOP;
    RETURN watches;
END
$$;

-- These find nothing that another user put where names are looked up, not even beside the
-- outbox. A date has one text, whoever writes it. The setting larder.schema was stored with each
-- function by an ALTER FUNCTION here, which since Postgres 15 only a superuser may do.
-- 0006_owner replaces the functions that read it.
DO $$
DECLARE
    one text;
BEGIN
    FOREACH one IN ARRAY ARRAY['larder_note()', 'larder_take_back(text[])', 'larder_watch(regclass, text)', 'larder_unwatch(regclass, text)'] LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = pg_catalog, pg_temp', one);
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', one);
    END LOOP;
END
$$;
-- The table is small, and to scan it all would look cheaper.
ALTER FUNCTION larder_take_back(text[]) SET enable_seqscan = off;
ALTER FUNCTION larder_note() SET TimeZone = 'UTC';
ALTER FUNCTION larder_note() SET DateStyle = 'ISO';
