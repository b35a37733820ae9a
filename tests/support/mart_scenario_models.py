"""The fixed models of the scenarios: one of each kind that a change can reach in a way of its own."""

from tests.support.random_models import Model

AT_THE_END, AFTER_THE_STATE = 71, 72  # advisory locks: at the end of jobs, and after `gated` has read what is new

OUTSIDE = f"""
create schema outside;
create table outside.rates (location text, rate numeric);
insert into outside.rates values ('A', 1), ('B', 2), ('C', 3);
create function outside.wait() returns boolean language plpgsql as
'begin perform pg_advisory_xact_lock_shared({AFTER_THE_STATE}); return true; end';
create view outside.gated as select 1 as one where outside.wait();
"""
SOURCES = """\
  - name: outside
    tables:
      - name: rates
      - name: gated
"""

JOBS = """\
select
    jobidentifier,
    userid,
    nullif(location, 'F') as location,
    revenue,
    jobcreatedate as created,
    json_build_object('revenue', revenue) as doc
from {{ current('jobs') }}"""
BY_LOCATION = """\
select location, count(*) as n, sum(revenue) as revenue, json_agg(jobidentifier order by jobidentifier) as members
from {{ ref('jobs') }}
group by 1"""
BY_USER = "select userid, count(*) as n, sum(revenue) as revenue from {{ ref('jobs') }} group by 1"
AWAY = """\
select jobs.location, count(*) as n, count(distinct jobs.userid) as users
from {{ ref('jobs') }} as jobs
inner join {{ ref('users') }} as users on jobs.userid = users.userid
where users.location <> jobs.location
group by 1"""
RANKS = """\
select *
from (
    select
        location,
        jobidentifier,
        revenue,
        row_number() over (partition by location order by revenue desc, jobidentifier) as rank
    from {{ ref('jobs') }}
) as places
where rank <= 3"""
SIZES = "select n % 3 as part, count(*) as locations, sum(revenue) as revenue from {{ ref('by_location') }} group by 1"
FIRST = "select location, jobidentifier, row_number() over (order by location, rank) as place from {{ ref('ranks') }}"
GATED = """\
select location, count(*) as n
from {{ ref('jobs') }}
where exists (select from {{ source('outside', 'gated') }})
group by 1"""
PLACED = "select jobidentifier, location, revenue from {{ ref('jobs') }} where outside.wait()"
PRICED = """\
select jobs.location, sum(jobs.revenue * rates.rate) as price
from {{ ref('jobs') }} as jobs
inner join {{ source('outside', 'rates') }} as rates on jobs.location = rates.location
group by 1"""


def _by(column: str, *upstreams: str, expression: str = "") -> dict[str, dict[str, str]]:
    return {column: dict.fromkeys(upstreams, expression or column)}


MODELS = (
    Model(
        "jobs",
        JOBS,
        dict.fromkeys(("jobidentifier", "userid", "location", "revenue", "created", "doc"), ""),
        ("jobidentifier",),
        unique=True,
        options=(
            "indexes=[{'columns': ['userid']}]",
            f"post_hook='select pg_advisory_xact_lock_shared({AT_THE_END})'",
        ),
    ),
    Model("users", "select userid, location from {{ current('users') }}", {"userid": "", "location": ""}),
    Model(
        "by_location",
        BY_LOCATION,
        dict.fromkeys(("location", "n", "revenue", "members"), ""),
        grain=_by("location", "jobs"),
    ),
    Model(
        "by_user",
        BY_USER,
        dict.fromkeys(("userid", "n", "revenue"), ""),
        ("userid",),
        0,
        _by("userid", "jobs"),
        {},
        True,
    ),
    Model(
        "away",
        AWAY,
        dict.fromkeys(("location", "n", "users"), ""),
        grain=_by("location", "jobs"),
        touched={
            "users": "select jobs.location from changed inner join {{ ref('jobs') }} as jobs "
            "on jobs.userid = changed.userid"
        },
    ),
    Model(
        "ranks",
        RANKS,
        dict.fromkeys(("location", "jobidentifier", "revenue", "rank"), ""),
        ("location", "rank"),
        grain=_by("location", "jobs"),
        unique=True,
    ),
    Model(
        "sizes",
        SIZES,
        dict.fromkeys(("part", "locations", "revenue"), ""),
        grain=_by("part", "by_location", expression="n % 3"),
    ),
    Model("first", FIRST, dict.fromkeys(("location", "jobidentifier", "place"), "")),
    Model("gated", GATED, {"location": "", "n": ""}, grain=_by("location", "jobs", "gated")),
    Model(
        "placed",
        PLACED,
        dict.fromkeys(("jobidentifier", "location", "revenue"), ""),
        ("jobidentifier",),
        grain=_by("location", "jobs"),
        unique=True,
    ),
    Model("priced", PRICED, {"location": "", "price": ""}, grain=_by("location", "jobs", "rates")),
)
