/* Options of `amend` for key slots; what they do is block/crypto/luks_slots.c.
 * Thread: the image's loop. */
#include "block/luks_amend.h"

#include "block/crypto/luks.h"
#include "block/secret.h"
#include "block/unlock.h"

#include <errno.h>
#include <stdio.h>

const struct create_option luks_amend_table[] = {
	{"iter-time", OPTION_NUM, "Time to spend in PBKDF in milliseconds", NULL},
	{"keyslot", OPTION_NUM, "Select a single keyslot to modify explicitly", NULL},
	{"new-secret", OPTION_STR,
	 "New secret to set in the matching keyslots. Empty string to erase", NULL},
	{"old-secret", OPTION_STR, "Select all keyslots that match this password", NULL},
	{"state", OPTION_STR, "Select new state of affected keyslots (active/inactive)", NULL},
	{0},
};

bool luks_amend_asked(const struct opts *o, const char *prefix)
{
	for (unsigned i = 0; i < o->n; i++)
		if (!strncmp(o->v[i].name, prefix, strlen(prefix)))
			return true;
	return false;
}

static const char *get(const struct amend_request *req, const char *prefix, const char *name)
{
	char full[64];

	snprintf(full, sizeof(full), "%s%s", prefix, name);
	return opts_get(req->options, full);
}

static int get_number(const struct amend_request *req, const char *prefix, const char *name,
		      u64 *out, struct error *err)
{
	const char *text = get(req, prefix, name);

	if (text && parse_u64(text, out) < 0)
		return err_set(err, -EINVAL, "Parameter '%s%s' expects a number", prefix, name);
	return 0;
}

static int get_secret(const struct amend_request *req, const char *id, const struct key **out,
		      struct error *err)
{
	*out = NULL;
	if (!id)
		return 0;
	return secrets_get(req->unlock ? req->unlock->secrets : NULL, id, out, err);
}

static int check_words(bool activate, const char *old, const char *new, struct error *err)
{
	if (activate && !new)
		return err_set(err, -EINVAL, "'new-secret' is required to activate a keyslot");
	if (activate && old)
		return err_set(err, -EINVAL,
			       "'old-secret' must not be given when activating keyslots");
	if (!activate && new)
		return err_set(err, -EINVAL,
			       "'new-secret' must not be given when erasing keyslots");
	return 0;
}

int luks_amend(struct fiber *f, struct luks *l, const struct amend_request *req, const char *prefix,
	       struct error *err)
{
	const char *state = get(req, prefix, "state"), *old = get(req, prefix, "old-secret"),
		   *new = get(req, prefix, "new-secret");
	struct luks_change c = {.force = req->force, .iter_ms = LUKS_ITER_MS_DEFAULT};
	u64 slot = UINT64_MAX;
	int ret;

	if (!state)
		return err_set(err, -EINVAL, "Parameter 'state' is missing");
	c.activate = !strcmp(state, "active");
	if (!c.activate && strcmp(state, "inactive"))
		return err_set(err, -EINVAL, "Parameter 'state' does not accept value '%s'", state);
	ret = get_number(req, prefix, "keyslot", &slot, err);
	if (ret == 0)
		ret = get_number(req, prefix, "iter-time", &c.iter_ms, err);
	if (ret == 0)
		ret = check_words(c.activate, old, new, err);
	if (ret == 0)
		ret = get_secret(req, old, &c.old, err);
	if (ret == 0)
		ret = get_secret(req, new, &c.new, err);
	if (ret < 0)
		return ret;
	c.slot = slot == UINT64_MAX ? -1 : (int)MIN(slot, (u64)INT32_MAX);
	if (!l->master.data)
		return err_set(err, -EACCES, "The image is locked");
	return luks_change_slots(f, l, &c, err);
}
