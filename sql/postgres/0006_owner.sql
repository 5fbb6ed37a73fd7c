-- The functions of 0004_outbox for a role that owns its database, or only a schema, and is no
-- superuser. Each has the name of its schema written into its body, in place of a setting
-- larder.schema that only a superuser may store with a function. CREATE OR REPLACE also drops
-- that setting where a superuser has stored it, so that an ordinary role can restore a dump.
-- Triggers and privileges stay as they are.

-- Runs after each statement that changes a watched table, as the owner of the outbox: whoever
-- may write the table needs no other privilege. One row of the outbox holds a thousand names at
-- most. NULL gives an empty text. Values become text by format() and not by a cast, since the
-- table's owner defines what a cast of the table's types runs.
DO $migration$
BEGIN
    EXECUTE replace($function$
CREATE OR REPLACE FUNCTION larder_note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET TimeZone = 'UTC'
    SET DateStyle = 'ISO'
AS $$
DECLARE
    own CONSTANT text := {schema};
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
$$
$function$, '{schema}', quote_literal(current_schema()));
END
$migration$;

-- Removes the rows that the triggers wrote in this transaction, as far as their names are among
-- those given: the caller delivers them. It finds the rows by their places and scans nothing,
-- because what a serializable transaction scans conflicts with every row that others insert
-- there. The table is small, and the planner would prefer to scan it.
DO $migration$
BEGIN
    EXECUTE replace($function$
CREATE OR REPLACE FUNCTION larder_take_back(given text[]) RETURNS void LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off
AS $$
DECLARE
    own CONSTANT text := {schema};
    noted tid[] := nullif(current_setting('larder.noted', true), '')::tid[];
BEGIN
    IF noted IS NOT NULL THEN
        EXECUTE format(
            'DELETE FROM %I.larder_outbox WHERE ctid = ANY ($1) AND xmin = pg_current_xact_id()::xid AND names <@ $2', own)
        USING noted, given;
    END IF;
END
$$
$function$, '{schema}', quote_literal(current_schema()));
END
$migration$;

-- SELECT larder_watch('users', 'user:{id}'): from now on a commit that changes rows of this
-- table invalidates the names that the template gives. Returns whether that is new. A table may
-- have several templates. A template may be what a resource's tag may be.
DO $migration$
BEGIN
    EXECUTE replace($function$
CREATE OR REPLACE FUNCTION larder_watch(watched regclass, template text) RETURNS boolean LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    own CONSTANT text := {schema};
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
$$
$function$, '{schema}', quote_literal(current_schema()));
END
$migration$;

-- Takes back larder_watch. Returns whether there was anything to take back.
CREATE OR REPLACE FUNCTION larder_unwatch(watched regclass, template text) RETURNS boolean LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
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
