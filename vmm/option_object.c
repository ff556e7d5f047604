/* -object: secrets, which encrypted images are opened with, sources of entropy, files
 * of what passes a network, and limits that drives share.
 *
 * Nothing else is kept of what was said of secrets. */
#include "vmm/options.h"

#include <errno.h>
#include <stdio.h>

static void print_throttle_help(void)
{
	static const char *const kinds[] = {"bps", "iops"}, *const ways[] = {"read", "total",
									     "write"};
	static const char *const ends[] = {"", "-max", "-max-length"};

	printf("throttle-group options:\n  limits=<ThrottleLimits>\n");
	for (unsigned i = 0; i < 18; i++)
		printf("%s  x-%s-%s%s=<int>\n", i == 9 ? "  x-iops-size=<int>\n" : "", kinds[i / 9],
		       ways[i / 3 % 3], ends[i % 3]);
}

static int print_help(struct config *c, const struct opts *o)
{
	const char *type = opts_get(o, "qom-type");

	c->writes_nothing = true;
	if (opts_has(o, "secret") || !strcmp(type, "secret"))
		printf("secret options:\n  data=<string>\n  file=<string>\n"
		       "  format=<raw|base64>\n  iv=<string>\n  keyid=<string>\n");
	else if (opts_has(o, "rng-random") || !strcmp(type, "rng-random"))
		printf("rng-random options:\n  filename=<string>\n");
	else if (opts_has(o, "filter-dump") || !strcmp(type, "filter-dump"))
		printf("filter-dump options:\n  file=<string>\n  maxlen=<uint32>\n"
		       "  netdev=<string>\n  queue=<NetFilterDirection>\n  status=<string>\n");
	else if (opts_has(o, "throttle-group") || !strcmp(type, "throttle-group"))
		print_throttle_help();
	else if (opts_has(o, "rng-builtin") || !strcmp(type, "rng-builtin"))
		printf("There are no options for rng-builtin.\n");
	else
		printf("List of user creatable objects:\n  filter-dump\n  rng-builtin\n  "
		       "rng-random\n"
		       "  secret\n  throttle-group\n");
	return 0;
}

static bool has_rng(const struct config *c, const char *id)
{
	list_for_each (pos, &c->rngs)
		if (!strcmp(list_entry(pos, struct frontend_config, link)->source, id))
			return true;
	return false;
}

static int add_rng(struct config *c, const struct opts *o, bool builtin, struct error *err)
{
	const char *id = opts_get(o, "id"), *file = opts_get(o, "filename");
	int ret = opts_check(o, builtin ? "qom-type id" : "qom-type id filename", err);
	struct frontend_config *r;

	if (ret < 0)
		return ret;
	if (!id)
		return err_set(err, -EINVAL, "Parameter 'id' is missing");
	r = xnew(struct frontend_config);
	r->source = xstrdup(id);
	r->spec = xstrdup(builtin ? "" : file ? file : "/dev/urandom");
	list_append(&c->rngs, &r->link);
	return 0;
}

static bool has_filter(const struct config *c, const char *id)
{
	list_for_each (pos, &c->filters)
		if (!strcmp(list_entry(pos, struct node_config, link)->name, id))
			return true;
	return false;
}

static int check_filter(const struct opts *o, struct error *err)
{
	static const char *const needed[] = {"id", "netdev", "file"};
	static const char *const queues[] = {"all", "rx", "tx", NULL};
	static const char *const states[] = {"on", "off", NULL};
	const char *queue = opts_get(o, "queue"), *status = opts_get(o, "status");
	u32 max_bytes = 1;
	int ret = opts_check(o, "qom-type id netdev file maxlen queue status", err);

	for (unsigned i = 0; ret == 0 && i < ARRAY_LEN(needed); i++)
		if (!opts_has(o, needed[i]))
			ret = err_set(err, -EINVAL, "Parameter '%s' is missing", needed[i]);
	if (ret < 0 || opts_get_u32(o, "maxlen", &max_bytes, err) < 0)
		return err->code;
	if (!max_bytes)
		return err_set(err, -EINVAL,
			       "Property 'filter-dump.maxlen' doesn't take value '0'");
	if (queue && parse_choice(queue, queues) < 0)
		return err_set(err, -EINVAL, "Parameter 'queue' does not accept value '%s'", queue);
	if (status && parse_choice(status, states) < 0)
		return err_set(err, -EINVAL,
			       "Invalid value for netfilter status, should be 'on' or 'off'");
	return 0;
}

static int add_filter(struct config *c, const struct option_use *use, struct error *err)
{
	const struct opts *o = use->opts;
	struct node_config *f;
	int ret = check_filter(o, err);

	if (ret < 0)
		return ret;
	if (!is_identifier(opts_get(o, "id")))
		return err_set(err, -EINVAL, "Parameter 'id' expects an identifier");
	f = xnew(struct node_config);
	f->source = xstrdup(use->source);
	f->name = xstrdup(opts_get(o, "id"));
	for (unsigned i = 0; i < o->n; i++)
		opts_add(&f->opts, o->v[i].name, o->v[i].value, o->v[i].bare);
	list_append(&c->filters, &f->link);
	return 0;
}

static int add_throttle(struct config *c, const struct opts *o, struct error *err)
{
	const char *id = opts_get(o, "id");
	struct throttle_limits limits;
	struct throttle_config *t;

	for (unsigned i = 0; i < o->n; i++) {
		const char *name = o->v[i].name;

		if (strcmp(name, "qom-type") && strcmp(name, "id") &&
		    !throttle_is_option(name, THROTTLE_OBJECT))
			return err_set(err, -EINVAL, "Invalid parameter '%s'", name);
	}
	if (!id)
		return err_set(err, -EINVAL, "Parameter 'id' is missing");
	if (!is_identifier(id))
		return err_set(err, -EINVAL, "Parameter 'id' expects an identifier");
	if (throttle_limits_parse(&limits, o, THROTTLE_OBJECT, err) < 0)
		return err->code;
	t = xnew(struct throttle_config);
	t->group = throttle_group_new(id, &limits);
	list_append(&c->throttles, &t->link);
	return 0;
}

static bool has_object(const struct config *c, const char *id)
{
	return secrets_find(&c->secrets, id) || has_rng(c, id) || has_filter(c, id) ||
	       config_find_throttle(c, id);
}

int option_object(struct config *c, const struct option_use *use, struct error *err)
{
	const struct opts *o = use->opts;
	const char *type = opts_get(o, "qom-type"), *id = opts_get(o, "id");

	if (!type)
		return err_set(err, -EINVAL, "Parameter 'qom-type' is missing");
	if (!strcmp(type, "help") || opts_has(o, "help") || opts_has(o, "?"))
		return print_help(c, o);
	if (id && has_object(c, id))
		return err_set(err, -EEXIST, "Duplicate ID '%s' for object", id);
	if (!strcmp(type, "rng-random") || !strcmp(type, "rng-builtin"))
		return add_rng(c, o, !strcmp(type, "rng-builtin"), err);
	if (!strcmp(type, "filter-dump"))
		return add_filter(c, use, err);
	if (!strcmp(type, "throttle-group"))
		return add_throttle(c, o, err);
	if (strcmp(type, "secret"))
		return err_set(err, -EINVAL, "Parameter 'qom-type' does not accept value '%s'",
			       type);
	return secrets_add(&c->secrets, o, err);
}

/* Overwrite a value, up to a comma that is not doubled. */
static char *hide_value(char *p)
{
	for (; *p && (*p != ',' || p[1] == ','); p++) {
		if (*p == ',')
			*p++ = 'x';
		*p = 'x';
	}
	return p;
}

void option_object_hide(char *text)
{
	if (*text == '{') {
		memset(text, 'x', strlen(text));
		return;
	}
	while (*text) {
		if (!strncmp(text, "data=", 5))
			text = hide_value(text + 5);
		while (*text && *text++ != ',')
			;
	}
}
