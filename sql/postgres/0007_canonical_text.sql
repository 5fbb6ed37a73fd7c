-- The canonical text of a value: one text for all values that the database calls equal. Tags are
-- made of it, here of what a column holds and in larder of what a request says. Both sides have to
-- give the same text; src/database/canonical.rs is the other one.

-- Whether citext compares letter by letter in this database, as larder does. Some locales of ICU
-- look at the letters around one. The final sigma alone is no matter: it counts as the other one.
CREATE OR REPLACE FUNCTION larder_folds() RETURNS boolean LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF getdatabaseencoding() <> 'UTF8' THEN
        RETURN false;
    END IF;
    RETURN (
        SELECT bool_and(translate(lower(probe), chr(962), chr(963)) = (
            SELECT string_agg(translate(lower(letter), chr(962), chr(963)), '' ORDER BY at)
            FROM regexp_split_to_table(probe, '') WITH ORDINALITY AS each (letter, at)))
        FROM (VALUES
            (chr(913) || chr(931)),
            (chr(913) || chr(931) || chr(913)),
            ('I' || chr(775)),
            ('J' || chr(768)),
            ('I' || chr(769)),
            (chr(302) || chr(771))
        ) AS probes (probe));
END
$$;

-- A date or a moment as larder writes it, of Postgres's ISO form in UTC: 2026-03-01T13:05:00Z. A
-- year before 0000 or past 9999 has a sign and six digits.
CREATE OR REPLACE FUNCTION larder_moment(formatted text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT coalesce(
        CASE WHEN year BETWEEN 0 AND 9999 THEN lpad(year::text, 4, '0')
            ELSE CASE WHEN year < 0 THEN '-' ELSE '+' END || lpad(abs(year)::text, greatest(6, length(abs(year)::text)), '0')
        END || day || coalesce('T' || clock, '') || CASE WHEN utc IS NULL THEN '' ELSE 'Z' END,
        formatted)
    FROM (
        SELECT CASE WHEN parts[5] IS NULL THEN parts[1]::int ELSE 1 - parts[1]::int END, parts[2], parts[3], parts[4]
        FROM (SELECT regexp_match(formatted,
            '^([0-9]+)(-[0-9][0-9]-[0-9][0-9])(?: ([0-9:.]+)([+]00)?)?( BC)?$')) AS matched (parts)
    ) AS moment (year, day, clock, utc)
$$;

-- An address or a network: without its prefix where that is the whole address, so that an inet and a
-- cidr that are equal have one text, and IPv6 with every digit.
CREATE OR REPLACE FUNCTION larder_address(formatted text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE family(formatted::inet)
        WHEN 4 THEN host(formatted::inet) || CASE masklen(formatted::inet) WHEN 32 THEN '' ELSE '/' || masklen(formatted::inet) END
        ELSE (SELECT string_agg(substr(encode(inet_send(formatted::inet), 'hex'), at, 4), ':' ORDER BY at) FROM generate_series(9, 37, 4) AS at)
            || CASE masklen(formatted::inet) WHEN 128 THEN '' ELSE '/' || masklen(formatted::inet) END
    END
$$;

-- The canonical text of a value of this kind, which larder_kind gives, from what format() makes of
-- it where TimeZone is UTC, DateStyle ISO, IntervalStyle postgres, bytea_output hex and
-- extra_float_digits 1. NULL, which format() makes an empty text of, is the empty text.
DO $migration$
BEGIN
    EXECUTE replace($function$
CREATE OR REPLACE FUNCTION larder_canonical(formatted text, kind text) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN formatted = '' THEN '' ELSE CASE kind
        WHEN 'bool' THEN CASE formatted WHEN 't' THEN 'true' WHEN 'f' THEN 'false' ELSE formatted END
        WHEN 'bpchar' THEN rtrim(formatted, ' ')
        WHEN 'citext' THEN translate(lower(formatted), chr(962), chr(963))
        WHEN 'numeric' THEN trim_scale(formatted::numeric)::text
        -- As a decimal number where fifteen digits (six of a float4) hold it, or else its bits.
        WHEN 'float4' THEN CASE
            WHEN formatted IN ('NaN', 'Infinity', '-Infinity') THEN formatted
            WHEN abs(formatted::float4) >= 0.000001 AND abs(formatted::float4) < 1000000000000000
                AND formatted::float4::numeric::float4 = formatted::float4
                THEN trim_scale(formatted::float4::numeric)::text
            WHEN formatted::float4 = 0 THEN '0'
            WHEN abs(formatted::float4) >= 0.000001 AND abs(formatted::float4) < 1000000000000000
                AND formatted::float4::float8::numeric::float8 = formatted::float4::float8
                THEN trim_scale(formatted::float4::float8::numeric)::text
            ELSE '0x' || encode(float8send(formatted::float4::float8), 'hex') END
        WHEN 'float8' THEN CASE
            WHEN formatted IN ('NaN', 'Infinity', '-Infinity') THEN formatted
            WHEN formatted::float8 = 0 THEN '0'
            WHEN abs(formatted::float8) >= 0.000001 AND abs(formatted::float8) < 1000000000000000
                AND formatted::float8::numeric::float8 = formatted::float8
                THEN trim_scale(formatted::float8::numeric)::text
            ELSE '0x' || encode(float8send(formatted::float8), 'hex') END
        WHEN 'bytea' THEN translate(encode(decode(substr(formatted, 3), 'hex'), 'base64'), chr(10), '')
        WHEN 'timetz' THEN CASE WHEN formatted ~ '[+-][0-9][0-9]$' THEN formatted || ':00' ELSE formatted END
        -- A year before 0000 or past 9999 has a sign and six digits.
        WHEN 'date' THEN {own}.larder_moment(formatted)
        WHEN 'timestamp' THEN {own}.larder_moment(formatted)
        WHEN 'timestamptz' THEN {own}.larder_moment(formatted)
        -- Its length in seconds: a month has 30 days and a day 24 hours where two are compared.
        WHEN 'interval' THEN CASE WHEN formatted IN ('infinity', '-infinity') THEN formatted ELSE (
            SELECT 'PT' || trim_scale((
                    ('x' || substr(hex, 1, 16))::bit(64)::int8::numeric
                    + (('x' || substr(hex, 17, 8))::bit(32)::int4::numeric
                        + ('x' || substr(hex, 25, 8))::bit(32)::int4::numeric * 30) * 86400000000
                ) * 0.000001)::text || 'S'
            FROM encode(interval_send(formatted::interval), 'hex') AS hex) END
        WHEN 'inet' THEN {own}.larder_address(formatted)
        WHEN 'cidr' THEN {own}.larder_address(formatted)
        ELSE formatted
    END END
$$
$function$, '{own}', quote_ident(current_schema()));
END
$migration$;

-- The kind of the values of a type, or of the type that a domain stands on: how their canonical
-- text is made. NULL: equal values have no one text that larder could give, so no name may hold them.
DO $migration$
BEGIN
    EXECUTE replace($function$
CREATE OR REPLACE FUNCTION larder_kind(kind_of oid, collated oid) RETURNS text LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    base record;
BEGIN
    LOOP
        SELECT typtype, typname, typnamespace, typbasetype INTO base FROM pg_type WHERE oid = kind_of;
        EXIT WHEN base.typtype IS DISTINCT FROM 'd';
        kind_of := base.typbasetype;
    END LOOP;
    IF collated <> 0 AND EXISTS (SELECT FROM pg_collation WHERE oid = collated AND NOT collisdeterministic) THEN
        RETURN NULL;
    END IF;
    RETURN CASE
        WHEN base.typtype = 'e' THEN 'enum'
        WHEN base.typtype = 'b' AND base.typname = 'citext' THEN CASE WHEN {own}.larder_folds() THEN 'citext' END
        WHEN base.typnamespace = 'pg_catalog'::regnamespace AND base.typname IN (
            'bool', 'int2', 'int4', 'int8', 'oid', 'numeric', 'float4', 'float8', 'text', 'varchar', 'bpchar', 'char', 'name',
            'uuid', 'bytea', 'date', 'time', 'timetz', 'timestamp', 'timestamptz', 'interval', 'inet', 'cidr', 'macaddr',
            'macaddr8', 'bit', 'varbit') THEN base.typname::text
    END;
END
$$
$function$, '{own}', quote_ident(current_schema()));
END
$migration$;

-- The canonical text of what format() gives for a value of this type, under the settings that
-- larder_canonical needs. NULL for a type that larder_watch refuses.
DO $migration$
BEGIN
    EXECUTE replace($function$
CREATE OR REPLACE FUNCTION larder_text(formatted text, kind regtype) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT {own}.larder_canonical(formatted, {own}.larder_kind(kind, (SELECT typcollation FROM pg_catalog.pg_type WHERE oid = kind)))
    WHERE {own}.larder_kind(kind, 0) IS NOT NULL
$$
$function$, '{own}', quote_ident(current_schema()));
END
$migration$;

-- As before, but the text of a value is its canonical one, by the type that the column has now, and
-- under settings of the session that a writer cannot choose.
DO $migration$
BEGIN
    EXECUTE replace(replace($function$
CREATE OR REPLACE FUNCTION larder_note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET TimeZone = 'UTC'
    SET DateStyle = 'ISO'
    SET IntervalStyle = 'postgres'
    SET bytea_output = 'hex'
    SET extra_float_digits = 1
    SET standard_conforming_strings = on
AS $$
DECLARE
    own CONSTANT text := {schema};
    named text;
    opaque boolean;
    places tid[];
    noted tid[] := nullif(current_setting('larder.noted', true), '')::tid[];
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        EXECUTE format('INSERT INTO %I.larder_outbox (names) VALUES (ARRAY[''*'']) RETURNING ARRAY[ctid]', own) INTO places;
    ELSE
        SELECT string_agg(
            CASE
                WHEN parts[1] IS NULL THEN quote_literal(parts[2])
                WHEN kind IN ('int2', 'int4', 'int8', 'oid', 'text', 'varchar', 'name', 'char', 'uuid', 'time', 'macaddr', 'macaddr8', 'bit', 'varbit', 'enum') THEN
                    format('%1$I.larder_escape(format(''%%s'', changed.%2$I))', own, parts[1])
                ELSE
                    format('%1$I.larder_escape(%1$I.larder_canonical(format(''%%s'', changed.%2$I), %3$L))', own, parts[1], kind)
            END,
            ' || ' ORDER BY at), bool_or(parts[1] IS NOT NULL AND kind IS NULL)
        INTO named, opaque
        FROM regexp_matches(TG_ARGV[0], '[{]([^{}]+)[}]|([^{}]+)', 'g') WITH ORDINALITY AS piece (parts, at)
        LEFT JOIN LATERAL (
            SELECT {own}.larder_kind(atttypid, attcollation) AS kind FROM pg_attribute
            WHERE attrelid = TG_RELID AND attname = parts[1] AND attnum > 0 AND NOT attisdropped
        ) AS place ON true;
        -- A watch from before larder refused the type, or a column that was changed since: every
        -- entry is invalidated, so that none is stale.
        IF opaque THEN
            named := '''*''';
        END IF;
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
$function$, '{schema}', quote_literal(current_schema())), '{own}', quote_ident(current_schema()));
END
$migration$;

-- SELECT larder_watch('users', 'user:{id}'): from now on a commit that changes rows of this
-- table invalidates the names that the template gives. Returns whether that is new. A table may
-- have several templates. A template may be what a resource's tag may be. Refuses a column whose
-- equal values have no one text.
DO $migration$
BEGIN
    EXECUTE replace(replace($function$
CREATE OR REPLACE FUNCTION larder_watch(watched regclass, template text) RETURNS boolean LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET standard_conforming_strings = on
AS $$
DECLARE
    own CONSTANT text := {schema};
    wrong text;
    missing text;
    opaque text;
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
    SELECT string_agg(DISTINCT format('%I of type %s', attname, format_type(atttypid, NULL)), ', ') INTO opaque
    FROM regexp_matches(template, '[{]([^{}]+)[}]', 'g') AS piece (parts)
    JOIN pg_attribute ON attrelid = watched AND attname = parts[1] AND attnum > 0 AND NOT attisdropped
    WHERE {own}.larder_kind(atttypid, attcollation) IS NULL;
    IF opaque IS NOT NULL THEN
        RAISE feature_not_supported USING
            MESSAGE = format('larder: %s has column %s: two values that it calls equal may be written differently, so a tag cannot have it', watched, opaque),
            HINT = 'Watch by another column, or by a generated column of a type that docs/sql.md lists under "Names".';
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
$function$, '{schema}', quote_literal(current_schema())), '{own}', quote_ident(current_schema()));
END
$migration$;
