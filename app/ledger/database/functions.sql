-- The money path in Postgres: one call is one transaction. `sqlite_money.py` says the same in SQLite's words.
--
-- Everybody takes locks in one order: limits by name, the drawing, budgets by id. An admission is not waited for by the
-- disk (synchronous_commit): if the server fails and loses it, *sent* finds no reservation, and nothing is drawn.

create or replace function ledger_admit(
    d jsonb, scopes text[], steps bigint[], amounts bigint[],  -- a step is null for places
    budgets text[], starts bigint[], ends bigint[], replica_name text, clock bigint
) returns jsonb language plpgsql as $$
declare
    minute constant bigint := 60000000;
    most constant bigint := coalesce((d->>'most')::bigint, 0);
    now_at bigint;
    uses bigint[] := '{}';
    taken bigint[] := '{}';
    counted text[] := '{}';
    known bigint;
    used bigint;
    found_rows integer;
    room record;
begin
    perform set_config('synchronous_commit', 'off', true);
    perform 1 from bucket where scope = any(scopes) order by scope for update;
    get diagnostics found_rows = row_count;
    if found_rows < cardinality(scopes) then
        insert into bucket (scope, full_at) select s, 0 from unnest(scopes) s order by s on conflict do nothing;
        perform 1 from bucket where scope = any(scopes) order by scope for update;
    end if;
    now_at := coalesce(clock, (extract(epoch from clock_timestamp()) * 1000000)::bigint);
    for i in 1..cardinality(scopes) loop
        if steps[i] is null then
            select count(*) into used from lease where scope = scopes[i];
        else
            -- A time further ahead is of a clock that was set back since.
            select case when full_at > now_at + 2 * minute then 0 else full_at end into used
                from bucket where scope = scopes[i];
        end if;
        uses := uses || used;
    end loop;
    select reserved_nano into known from drawing where id = d->>'id';
    if known is not null then
        return jsonb_build_object('held', known, 'uses', uses, 'now', now_at);
    end if;
    for i in 1..cardinality(scopes) loop
        if (case when steps[i] is null then uses[i] >= amounts[i]
                 else steps[i] > minute or greatest(uses[i], now_at) + steps[i] - now_at > minute end) then
            return jsonb_build_object('limit', i - 1, 'uses', uses, 'now', now_at);
        end if;
        taken := taken || case when steps[i] is null then uses[i] + 1 else greatest(uses[i], now_at) + steps[i] end;
    end loop;

    if cardinality(budgets) > 0 then
        select count(*) into found_rows from unnest(budgets, starts) u(id, at)
            join budget_period p on p.budget_id = u.id and p.starts_at = u.at;
        if found_rows < cardinality(budgets) then
            insert into budget_period (budget_id, starts_at, ends_at)
                select u.id, u.at, u.until from unnest(budgets, starts, ends) u(id, at, until) order by u.id
                on conflict do nothing;
        end if;
        for room in
            select b.id, b.amount_nano, b.hard, p.spent_nano + p.in_doubt_nano as used, p.held_nano as held
            from unnest(budgets, starts) u(id, at)
            join budget_period p on p.budget_id = u.id and p.starts_at = u.at
            join budget b on b.id = u.id and b.removed_at is null
            order by p.budget_id for update of p
        loop
            if room.hard = 1 and room.used + room.held + most > room.amount_nano then
                return jsonb_build_object('budget', room.id, 'amount', room.amount_nano, 'used', room.used,
                                          'held', room.held, 'uses', uses, 'now', now_at);
            end if;
            counted := counted || room.id;
        end loop;
    end if;

    update bucket set full_at = t.at from unnest(scopes, taken, steps) t(scope, at, step)
        where bucket.scope = t.scope and t.step is not null;
    insert into lease (scope, drawing_id, replica, at)
        select t.scope, d->>'id', replica_name, now_at from unnest(scopes, steps) t(scope, step) where t.step is null;
    update budget_period p set held_nano = p.held_nano + most from unnest(budgets, starts) u(id, at)
        where p.budget_id = u.id and p.starts_at = u.at and u.id = any(counted);
    perform ledger_insert(d, replica_name, now_at);
    insert into charge (drawing_id, budget_id, starts_at)
        select d->>'id', u.id, u.at from unnest(budgets, starts) u(id, at) where u.id = any(counted);
    return jsonb_build_object('held', most, 'uses', taken, 'now', now_at);
end $$;

create or replace function ledger_insert(d jsonb, replica_name text, now_at bigint) returns void language plpgsql as $$
declare
    most constant bigint := coalesce((d->>'most')::bigint, 0);
begin
    insert into drawing (id, request_id, run_id, at, replica, key_id, project_id, end_user, tags, client, operation,
                         asked_model, model, state, n, asked, reserved_nano, held_nano)
    values (d->>'id', d->>'request_id', d->>'run_id', now_at, replica_name, d->>'key_id', d->>'project_id',
            d->>'end_user', d->>'tags', d->>'client', d->>'operation', d->>'asked_model', d->>'model', 'held',
            (d->>'n')::integer, d->>'asked', most, most);
    if most <> 0 then
        insert into entry (drawing_id, seq, kind, held_nano, at, made_by)
        values (d->>'id', 0, 'reserve', most, now_at, 'gateway');
    end if;
end $$;

-- Writes the row of a request that was admitted without the database.
create or replace function ledger_defer(
    d jsonb, budgets text[], starts bigint[], ends bigint[], replica_name text, now_at bigint
) returns void language plpgsql as $$
begin
    if exists (select 1 from drawing where id = d->>'id') then
        return;
    end if;
    perform ledger_insert(d, replica_name, now_at);
    insert into charge (drawing_id, budget_id, starts_at)
        select d->>'id', u.id, u.at from unnest(budgets, starts) u(id, at);
    insert into budget_period (budget_id, starts_at, ends_at, held_nano)
        select u.id, u.at, u.until, coalesce((d->>'most')::bigint, 0)
        from unnest(budgets, starts, ends) u(id, at, until) order by u.id
        on conflict (budget_id, starts_at) do update set held_nano = budget_period.held_nano + excluded.held_nano;
end $$;

-- Holds `most` for a drawing in all. Returns null if its reservation is gone, a budget's row if that is full, else {}.
-- Where the money has left already, room is not asked for.
create or replace function ledger_reserve(
    id_ text, most bigint, clock bigint, has_left boolean
) returns jsonb language plpgsql as $$
declare
    now_at bigint;
    more bigint;
    room record;
begin
    select most - held_nano into more from drawing where id = id_ and state in ('held', 'sent') for update;
    if not found then
        return null;
    end if;
    if more <= 0 then
        return '{}';
    end if;
    for room in
        select b.id, b.amount_nano, b.hard, p.starts_at, p.ends_at, p.spent_nano + p.in_doubt_nano as used,
               p.held_nano as held
        from charge c join budget_period p on p.budget_id = c.budget_id and p.starts_at = c.starts_at
        join budget b on b.id = c.budget_id and b.removed_at is null
        where c.drawing_id = id_ order by p.budget_id for update of p
    loop
        if room.hard = 1 and not has_left and room.used + room.held + more > room.amount_nano then
            return jsonb_build_object('budget', room.id, 'starts_at', room.starts_at, 'ends_at', room.ends_at,
                                      'amount', room.amount_nano, 'used', room.used, 'held', room.held, 'needed', more);
        end if;
    end loop;
    now_at := coalesce(clock, (extract(epoch from clock_timestamp()) * 1000000)::bigint);
    update drawing set held_nano = held_nano + more, reserved_nano = reserved_nano + more where id = id_;
    perform ledger_move(id_, 'reserve', more, 0, 0, now_at, 'gateway', null);
    return '{}';
end $$;

create or replace function ledger_sent(a jsonb) returns boolean language plpgsql as $$
begin
    update drawing set state = 'sent', attempts = greatest(attempts, (a->>'seq')::integer)
        where id = a->>'drawing_id' and state in ('held', 'sent');
    if not found then
        return false;
    end if;
    insert into attempt (drawing_id, seq, sent_at, provider, deployment, model, images, dropped, mapped, most_nano)
    values (a->>'drawing_id', (a->>'seq')::integer, (a->>'at')::bigint, a->>'provider', a->>'deployment', a->>'model',
            (a->>'images')::integer, a->>'dropped', a->>'mapped', (a->>'most')::bigint)
    on conflict (drawing_id, seq) do nothing;
    return true;
end $$;

create or replace function ledger_settle(s jsonb, kind_ text, state_ text) returns boolean language plpgsql as $$
declare
    d record;
begin
    select * into d from drawing where id = s->>'drawing_id' for update;
    if not found then
        return false;
    end if;
    if d.state not in ('held', 'sent')
        and (d.outcome <> 'interrupted' or s->>'outcome' = 'interrupted'
             or exists (select 1 from entry e where e.drawing_id = d.id and e.kind = 'resolve')) then
        return false;
    end if;
    update drawing set
        state = state_, outcome = s->>'outcome', ended_at = (s->>'at')::bigint, held_nano = 0,
        cost_nano = (s->>'cost')::bigint, in_doubt_nano = (s->>'in_doubt')::bigint, cost_source = s->>'cost_source',
        price_id = (s->>'price_id')::bigint, images = (s->>'images')::integer, provider = s->>'provider',
        deployment = s->>'deployment', upstream_model = s->>'upstream_model', width = (s->>'width')::integer,
        height = (s->>'height')::integer, format = s->>'format', quality = s->>'quality',
        http_status = (s->>'http_status')::integer, error_code = s->>'error_code',
        queue_ms = (s->>'queue_ms')::integer, first_ms = (s->>'first_ms')::integer,
        total_ms = (s->>'total_ms')::integer,
        attempts = greatest(attempts, (select coalesce(max((x->>'seq')::integer), 0)
                                       from jsonb_array_elements(s->'attempts') x))
        where id = d.id;
    perform ledger_move(d.id, kind_, -d.held_nano, (s->>'cost')::bigint - d.cost_nano,
                        (s->>'in_doubt')::bigint - d.in_doubt_nano, (s->>'at')::bigint, s->>'by', s->>'note');
    delete from lease where drawing_id = d.id;
    insert into attempt (drawing_id, seq, provider, deployment, model, images, result, http_status,
                         provider_request_id, ms, cost_nano, in_doubt_nano)
        select d.id, (x->>'seq')::integer, x->>'provider', x->>'deployment', x->>'model', (x->>'images')::integer,
               x->>'result', (x->>'http_status')::integer, x->>'provider_request_id', (x->>'ms')::integer,
               (x->>'cost')::bigint, (x->>'in_doubt')::bigint
        from jsonb_array_elements(s->'attempts') x
        on conflict (drawing_id, seq) do update set
            result = excluded.result, images = excluded.images, http_status = excluded.http_status,
            provider_request_id = excluded.provider_request_id, ms = excluded.ms, cost_nano = excluded.cost_nano,
            in_doubt_nano = excluded.in_doubt_nano;
    return true;
end $$;

create or replace function ledger_resolve(id_ text, is_paid boolean, now_at bigint, by_ text, note_ text)
returns boolean language plpgsql as $$
declare
    d record;
    paid_nano bigint;
begin
    select * into d from drawing where id = id_ and state = 'in_doubt' for update;
    if not found then
        return false;
    end if;
    paid_nano := case when is_paid then d.in_doubt_nano else 0 end;
    update drawing set
        state = case when is_paid or cost_nano <> 0 or images <> 0 then 'settled' else 'released' end,
        in_doubt_nano = 0, cost_nano = cost_nano + paid_nano
        where id = id_;
    perform ledger_move(id_, 'resolve', 0, paid_nano, -d.in_doubt_nano, now_at, by_, note_);
    return true;
end $$;

-- Writes an entry, and moves the same money in each budget that the drawing counts in.
create or replace function ledger_move(
    id_ text, kind_ text, held_ bigint, spent_ bigint, in_doubt_ bigint, now_at bigint, by_ text, note_ text
) returns void language plpgsql as $$
declare
    charged record;
    crossed integer;
begin
    if held_ = 0 and spent_ = 0 and in_doubt_ = 0 then
        return;
    end if;
    insert into entry (drawing_id, seq, kind, held_nano, spent_nano, in_doubt_nano, at, made_by, note)
        select id_, coalesce(max(seq) + 1, 0), kind_, held_, spent_, in_doubt_, now_at, by_, nullif(note_, '')
        from entry where drawing_id = id_;
    for charged in
        select p.budget_id, p.starts_at from charge c
        join budget_period p on p.budget_id = c.budget_id and p.starts_at = c.starts_at
        where c.drawing_id = id_ order by p.budget_id for update of p
    loop
        update budget_period set held_nano = held_nano + held_, spent_nano = spent_nano + spent_,
            in_doubt_nano = in_doubt_nano + in_doubt_
            where budget_id = charged.budget_id and starts_at = charged.starts_at;
        if spent_ = 0 and in_doubt_ = 0 then
            continue;
        end if;
        for crossed in
            insert into budget_alert (budget_id, starts_at, threshold, at)
                select b.id, p.starts_at, t::integer, now_at
                from budget b join budget_period p on p.budget_id = b.id and p.starts_at = charged.starts_at
                cross join jsonb_array_elements_text(b.thresholds::jsonb) t
                where b.id = charged.budget_id and b.removed_at is null
                    and (p.spent_nano + p.in_doubt_nano)::numeric * 100 >= t::numeric * b.amount_nano
                on conflict do nothing returning threshold
        loop
            insert into outbox (kind, body, next_at)
                select 'budget_alert', json_build_object(
                    'budget_id', b.id, 'starts_at', p.starts_at, 'threshold', crossed,
                    'used_nano', p.spent_nano + p.in_doubt_nano, 'amount_nano', b.amount_nano)::text, now_at
                from budget b join budget_period p on p.budget_id = b.id and p.starts_at = charged.starts_at
                where b.id = charged.budget_id;
        end loop;
    end loop;
end $$;
