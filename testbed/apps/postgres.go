package apps

import (
	"context"
	"fmt"
)

var postgres = App{
	Name: "postgres", Images: []string{"shop-db"},
	Loaded:    "2,000 accounts, 5,000 transfers between them, a sequence; the primary and a streaming standby",
	workloads: []string{"statefulset/postgres"},
	load:      loadPostgres, check: checkPostgres, write: writePostgres,
}

const postgresLoad = `
create table accounts (id int primary key, owner text unique not null, balance bigint not null);
create table transfers (id bigserial primary key, source int references accounts, target int references accounts, amount bigint not null);
insert into accounts select i, 'owner-' || i, 1000 from generate_series(1, 2000) i;
insert into transfers (source, target, amount) select 1 + i % 2000, 1 + (i * 7) % 2000, i % 10 from generate_series(1, 5000) i;
update accounts a set balance = balance
  - coalesce((select sum(amount) from transfers where source = a.id), 0)
  + coalesce((select sum(amount) from transfers where target = a.id), 0);
`

// postgresSum tells of every row, and of the rule that no transfer makes money.
const postgresSum = `select md5(string_agg(a::text, ',' order by id)), sum(balance), (select md5(string_agg(t::text, ',' order by id)) from transfers t) from accounts a`

func loadPostgres(ctx context.Context, p Place) (any, error) {
	if _, err := p.feed(ctx, "postgres-0", postgresLoad, "psql", "-q", "-v", "ON_ERROR_STOP=1", "-U", "bank", "bank"); err != nil {
		return nil, err
	}
	known, err := p.sh(ctx, "postgres-0", `psql -U bank bank -Atc "`+postgresSum+`"`)
	if err != nil {
		return nil, err
	}
	return known, until(ctx, func(ctx context.Context) error {
		return p.expect(ctx, "rows on the standby", "postgres-1", `psql -U bank bank -Atc "`+postgresSum+`"`, known)
	})
}

func writePostgres(ctx context.Context, p Place, n int) error {
	_, err := p.sh(ctx, "postgres-0", fmt.Sprintf(`psql -U bank bank -qAtc "create table if not exists scratch (n int)" -c "insert into scratch values (%d)"`, n))
	return err
}

func checkPostgres(ctx context.Context, p Place, known any) error {
	want, _ := known.(string)
	return inTurn(
		func() error {
			return p.expect(ctx, "rows", "postgres-0", `psql -U bank bank -Atc "`+postgresSum+`"`, want)
		},
		func() error {
			return p.expect(ctx, "indexes", "postgres-0", `pg_amcheck -U postgres -d bank --heapallindexed`, "")
		},
		func() error {
			return p.expect(ctx, "next of the sequence", "postgres-0",
				`psql -U bank bank -qAtc "insert into transfers (source, target, amount) values (1, 1, 0) returning id > 5000"`, "t")
		},
		func() error {
			return until(ctx, func(ctx context.Context) error {
				return p.expect(ctx, "new row on the standby", "postgres-1",
					`psql -U bank bank -Atc "select count(*), pg_is_in_recovery() from transfers"`, "5001|t")
			})
		},
	)
}
