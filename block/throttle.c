/* Limits of drives; see throttle.h. */
#include "block/throttle.h"

#include "base/thread.h"

#include <errno.h>
#include <stdio.h>

#define MOST	  1000000000000000ull
#define NS	  1e9
#define BUCKETS	  6
#define NAME_ROOM 64

enum { TOTAL, READ, WRITE };

struct bucket {
	double level; /* of the whole burst */
	double burst; /* leaks at the burst's rate */
};

struct throttle_group {
	unsigned owners; /* [atomic] */
	char *name;	 /* [const] */
	struct mutex lock;
	struct throttle_limits limits;	/* [lock] */
	struct bucket buckets[BUCKETS]; /* [lock] bps, then iops */
	u64 leaked_ns;			/* [lock] when they were brought up to date */
};

/* --- options ---------------------------------------------------------------------- */

static const char *const kinds[] = {"bps", "iops"};
static const char *const old_ways[] = {"", "_rd", "_wr"};
static const char *const new_ways[] = {"-total", "-read", "-write"};

static const char *const old_ends[] = {"", "_max", "_max_length"};
static const char *const new_ends[] = {"", "-max", "-max-length"};

/* Two spellings of each. */
struct names {
	char of_old[NAME_ROOM], of_new[NAME_ROOM];
};

static void name_limit(struct names *n, enum throttle_owner owner, unsigned i, unsigned end)
{
	const char *kind = kinds[i / 3], *way = new_ways[i % 3];

	if (owner == THROTTLE_DRIVE) {
		snprintf(n->of_old, sizeof(n->of_old), "%s%s%s", kind, old_ways[i % 3],
			 old_ends[end]);
		snprintf(n->of_new, sizeof(n->of_new), "throttling.%s%s%s", kind, way,
			 new_ends[end]);
	} else {
		snprintf(n->of_old, sizeof(n->of_old), "x-%s%s%s", kind, way, new_ends[end]);
		snprintf(n->of_new, sizeof(n->of_new), "limits.%s%s%s", kind, way, new_ends[end]);
	}
}

static const struct names size_names[] = {
	[THROTTLE_DRIVE] = {"iops_size", "throttling.iops-size"},
	[THROTTLE_OBJECT] = {"x-iops-size", "limits.iops-size"},
};

static int get_number(const struct opts *o, const struct names *n, u64 *out, struct error *err)
{
	const char *value = opts_get(o, n->of_new), *old = opts_get(o, n->of_old);

	if (value && old)
		return err_set(err, -EINVAL,
			       "'%s' and its alias '%s' can't be used at the same time", n->of_new,
			       n->of_old);
	value = value ? value : old;
	if (!value)
		return 0;
	if (*value == '-')
		*out = UINT64_MAX; /* out of range, as the check will say */
	else if (parse_u64(value, out) < 0)
		return err_set(err, -EINVAL, "Parameter '%s' expects a number", n->of_new);
	return 0;
}

static int get_limit(struct throttle_limit *l, const struct opts *o, enum throttle_owner owner,
		     unsigned i, struct error *err)
{
	u64 *const to[] = {&l->avg, &l->max, &l->length};
	struct names n;
	int ret = 0;

	l->length = 1;
	for (unsigned end = 0; end < ARRAY_LEN(to) && ret == 0; end++) {
		name_limit(&n, owner, i, end);
		ret = get_number(o, &n, to[end], err);
	}
	return ret;
}

int throttle_limits_parse(struct throttle_limits *l, const struct opts *o,
			  enum throttle_owner owner, struct error *err)
{
	int ret;

	*l = (struct throttle_limits){0};
	ret = get_number(o, &size_names[owner], &l->iops_size, err);
	for (unsigned i = 0; i < BUCKETS && ret == 0; i++)
		ret = get_limit(i < 3 ? &l->bps[i] : &l->iops[i - 3], o, owner, i, err);
	return ret < 0 ? ret : throttle_limits_check(l, err);
}

static bool is_one_of(const struct names *n, const char *name)
{
	return !strcmp(name, n->of_old) || !strcmp(name, n->of_new);
}

bool throttle_is_option(const char *name, enum throttle_owner owner)
{
	struct names n;

	if (owner == THROTTLE_DRIVE &&
	    (!strcmp(name, "group") || !strcmp(name, "throttling.group")))
		return true;
	if (is_one_of(&size_names[owner], name))
		return true;
	for (unsigned i = 0; i < BUCKETS; i++)
		for (unsigned end = 0; end < 3; end++) {
			name_limit(&n, owner, i, end);
			if (is_one_of(&n, name))
				return true;
		}
	return false;
}

static int check_limit(const struct throttle_limit *l, struct error *err)
{
	if (l->avg > MOST || l->max > MOST)
		return err_set(err, -EINVAL, "bps/iops/max values must be within [0, %llu]", MOST);
	if (!l->length)
		return err_set(err, -EINVAL, "the burst length cannot be 0");
	if (l->length > 1 && !l->max)
		return err_set(err, -EINVAL, "burst length set without burst rate");
	if (l->max && !l->avg)
		return err_set(err, -EINVAL,
			       "bps_max/iops_max require corresponding bps/iops values");
	if (l->max && l->max < l->avg)
		return err_set(err, -EINVAL, "bps_max/iops_max cannot be lower than bps/iops");
	if (l->max && l->length > MOST / l->max)
		return err_set(err, -EINVAL, "burst length too high for this burst rate");
	return 0;
}

static bool total_and_parts(const struct throttle_limit *l)
{
	return (l[TOTAL].avg && (l[READ].avg || l[WRITE].avg)) ||
	       (l[TOTAL].max && (l[READ].max || l[WRITE].max));
}

int throttle_limits_check(const struct throttle_limits *l, struct error *err)
{
	int ret = 0;

	if (total_and_parts(l->bps) || total_and_parts(l->iops))
		return err_set(err, -EINVAL,
			       "bps/iops/max total values and read/write values cannot be used at "
			       "the same time");
	if (l->iops_size && !l->iops[TOTAL].avg && !l->iops[READ].avg && !l->iops[WRITE].avg)
		return err_set(err, -EINVAL, "iops size requires an iops value to be set");
	for (unsigned i = 0; i < 3 && ret == 0; i++) {
		ret = check_limit(&l->bps[i], err);
		if (ret == 0)
			ret = check_limit(&l->iops[i], err);
	}
	return ret;
}

bool throttle_limits_any(const struct throttle_limits *l)
{
	for (unsigned i = 0; i < 3; i++)
		if (l->bps[i].avg || l->iops[i].avg)
			return true;
	return false;
}

/* --- groups ------------------------------------------------------------------------- */

struct throttle_group *throttle_group_new(const char *name, const struct throttle_limits *l)
{
	struct throttle_group *g = xnew(struct throttle_group);

	g->owners = 1;
	g->name = xstrdup(name);
	g->limits = *l;
	mutex_init(&g->lock);
	return g;
}

struct throttle_group *throttle_group_ref(struct throttle_group *g)
{
	__atomic_fetch_add(&g->owners, 1, __ATOMIC_RELAXED);
	return g;
}

void throttle_group_put(struct throttle_group *g)
{
	/* Partner: itself, of another owner. */
	if (!g || __atomic_sub_fetch(&g->owners, 1, __ATOMIC_ACQ_REL))
		return;
	mutex_fini(&g->lock);
	free(g->name);
	free(g);
}

const char *throttle_group_name(const struct throttle_group *g)
{
	return g->name;
}

void throttle_get(struct throttle_group *g, struct throttle_limits *out)
{
	LOCK_SCOPE(&g->lock);
	*out = g->limits;
}

void throttle_set(struct throttle_group *g, const struct throttle_limits *l)
{
	LOCK_SCOPE(&g->lock);
	g->limits = *l;
	memset(g->buckets, 0, sizeof(g->buckets));
}

/* --- buckets ------------------------------------------------------------------------ */

static const struct throttle_limit *limit_of(const struct throttle_group *g, unsigned i)
{
	return i < 3 ? &g->limits.bps[i] : &g->limits.iops[i - 3];
}

static void leak(struct throttle_group *g, u64 now)
{
	double seconds = now > g->leaked_ns ? (double)(now - g->leaked_ns) / NS : 0;

	g->leaked_ns = now;
	for (unsigned i = 0; i < BUCKETS; i++) {
		const struct throttle_limit *l = limit_of(g, i);
		struct bucket *b = &g->buckets[i];

		b->level = MAX(b->level - (double)l->avg * seconds, 0.0);
		b->burst = MAX(b->burst - (double)l->max * seconds, 0.0);
	}
}

/* Seconds until the bucket is not full any more. */
static double wait_for(const struct bucket *b, const struct throttle_limit *l)
{
	double size = l->max ? (double)l->max * (double)l->length : (double)l->avg / 10;
	double wait = 0;

	if (!l->avg)
		return 0;
	if (b->level > size)
		wait = (b->level - size) / (double)l->avg;
	/* Within a long burst its own rate counts. */
	if (l->length > 1 && b->burst > (double)l->max / 10)
		wait = MAX(wait, (b->burst - (double)l->max / 10) / (double)l->max);
	return wait;
}

static void fill(struct bucket *b, double units)
{
	b->level += units;
	b->burst += units;
}

static double requests(const struct throttle_limits *l, u64 bytes)
{
	return l->iops_size && bytes > l->iops_size ? (double)bytes / (double)l->iops_size : 1;
}

u64 throttle_take(struct throttle_group *g, bool write, u64 bytes, u64 now)
{
	const unsigned mine[] = {TOTAL, write ? WRITE : READ, 3 + TOTAL,
				 3 + (write ? WRITE : READ)};
	double wait = 0;
	LOCK_SCOPE(&g->lock);

	leak(g, now);
	for (unsigned i = 0; i < ARRAY_LEN(mine); i++)
		wait = MAX(wait, wait_for(&g->buckets[mine[i]], limit_of(g, mine[i])));
	if (wait > 0)
		return MAX((u64)(wait * NS), (u64)1000);
	for (unsigned i = 0; i < ARRAY_LEN(mine); i++)
		fill(&g->buckets[mine[i]],
		     mine[i] < 3 ? (double)bytes : requests(&g->limits, bytes));
	return 0;
}
