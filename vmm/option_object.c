/* -object: secrets, which encrypted images are opened with, and sources of entropy.
 *
 * Nothing else is kept of what was said: it may have been a passphrase. */
#include "vmm/options.h"

#include <errno.h>
#include <stdio.h>

static int print_help(struct config *c, const struct opts *o)
{
	const char *type = opts_get(o, "qom-type");

	c->writes_nothing = true;
	if (opts_has(o, "secret") || !strcmp(type, "secret"))
		printf("secret options:\n  data=<string>\n  file=<string>\n"
		       "  format=<raw|base64>\n  iv=<string>\n  keyid=<string>\n");
	else if (opts_has(o, "rng-random") || !strcmp(type, "rng-random"))
		printf("rng-random options:\n  filename=<string>\n");
	else if (opts_has(o, "rng-builtin") || !strcmp(type, "rng-builtin"))
		printf("There are no options for rng-builtin.\n");
	else
		printf("List of user creatable objects:\n  rng-builtin\n  rng-random\n"
		       "  secret\n");
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

int option_object(struct config *c, const struct option_use *use, struct error *err)
{
	const struct opts *o = use->opts;
	const char *type = opts_get(o, "qom-type"), *id = opts_get(o, "id");

	if (!type)
		return err_set(err, -EINVAL, "Parameter 'qom-type' is missing");
	if (!strcmp(type, "help") || opts_has(o, "help") || opts_has(o, "?"))
		return print_help(c, o);
	if (id && (secrets_find(&c->secrets, id) || has_rng(c, id)))
		return err_set(err, -EEXIST, "Duplicate ID '%s' for object", id);
	if (!strcmp(type, "rng-random") || !strcmp(type, "rng-builtin"))
		return add_rng(c, o, !strcmp(type, "rng-builtin"), err);
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
