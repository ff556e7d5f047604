/* -object: secrets, which encrypted images are opened with.
 *
 * Nothing else is kept of what was said: it may have been a passphrase. */
#include "vmm/options.h"

#include <errno.h>
#include <stdio.h>

static int print_help(struct config *c, const struct opts *o)
{
	c->writes_nothing = true;
	if (opts_has(o, "secret") || !strcmp(opts_get(o, "qom-type"), "secret"))
		printf("secret options:\n  data=<string>\n  file=<string>\n"
		       "  format=<raw|base64>\n  iv=<string>\n  keyid=<string>\n");
	else
		printf("List of user creatable objects:\n  secret\n");
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
	if (strcmp(type, "secret"))
		return err_set(err, -EINVAL, "Parameter 'qom-type' does not accept value '%s'",
			       type);
	if (id && secrets_find(&c->secrets, id))
		return err_set(err, -EEXIST, "Duplicate ID '%s' for object", id);
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
