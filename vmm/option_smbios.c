/* -smbios: fields of the SMBIOS tables, kept by type; firmware/smbios.c puts them there.
 *
 * DMTF DSP0134, chapter 7.  Of types 8 and 41 every use makes a structure: each begins with
 * an entry "type".  Type 11 collects strings. */
#include "base/io.h"
#include "vmm/options.h"

#include <errno.h>
#include <stdio.h>

#define TEXT_MAX    255 /* characters of a text */
#define STRINGS_MAX 255 /* of type 11 */
#define FILE_MAX    (32 * KiB)

static const char *const keys[SMBIOS_TYPES] = {
	[0] = "type vendor version date release",
	[1] = "type manufacturer product version serial uuid sku family",
	[2] = "type manufacturer product version serial asset location",
	[3] = "type manufacturer version serial asset sku",
	[4] = "type sock_pfx manufacturer version serial asset part max-speed current-speed "
	      "processor-id",
	[8] = "type internal_reference external_reference connector_type port_type",
	[11] = "type value path",
	[17] = "type loc_pfx bank manufacturer serial asset part speed",
	[41] = "type designation kind instance pcidev",
};

static int check_number(const struct opt *o, u64 max, struct error *err)
{
	u64 n;

	if (parse_u64(o->value, &n) < 0)
		return err_set(err, -EINVAL, "Parameter '%s' expects a number", o->name);
	if (n > max)
		return err_set(err, -EINVAL, "%s is %s, expected 0..%llu", o->name, o->value,
			       (unsigned long long)max);
	return 0;
}

static int check_release(const char *text, struct error *err)
{
	unsigned major, minor;
	char rest;

	if (sscanf(text, "%3u.%3u%c", &major, &minor, &rest) != 2 || major > 255 || minor > 255)
		return err_set(err, -EINVAL, "Invalid release");
	return 0;
}

static int check(struct config *c, const struct opt *o, struct error *err)
{
	static const struct {
		const char *name;
		u64 max;
	} numbers[] = {{"max-speed", UINT16_MAX}, {"current-speed", UINT16_MAX},
		       {"speed", UINT16_MAX},	  {"processor-id", UINT64_MAX},
		       {"connector_type", 255},	  {"port_type", 255},
		       {"instance", 255}};

	for (unsigned i = 0; i < ARRAY_LEN(numbers); i++)
		if (!strcmp(o->name, numbers[i].name))
			return check_number(o, numbers[i].max, err);
	if (strlen(o->value) > TEXT_MAX)
		return err_set(err, -EINVAL, "%s has more than %u characters", o->name, TEXT_MAX);
	if (!strcmp(o->name, "release"))
		return check_release(o->value, err);
	if (!strcmp(o->name, "kind") && parse_choice(o->value, smbios_kinds) < 0)
		return err_set(err, -EINVAL, "invalid parameter value: %s", o->value);
	if (strcmp(o->name, "uuid"))
		return 0;
	if (!config_parse_uuid(o->value, c->uuid))
		return err_set(err, -EINVAL, "Invalid UUID");
	c->has_uuid = true;
	return 0;
}

static int add_string(struct opts *strings, const char *text, struct error *err)
{
	if (!*text)
		return err_set(err, -EINVAL, "an OEM string is empty");
	if (strings->n == STRINGS_MAX)
		return err_set(err, -EINVAL, "there are more than %u OEM strings", STRINGS_MAX);
	opts_add(strings, "value", text, false);
	return 0;
}

/* What a file holds, as it is. */
static int add_file(struct opts *strings, const char *path, struct error *err)
{
	u8 *data AUTO_FREE = NULL;
	AUTO_FREE char *text = NULL;
	u64 bytes;
	int ret = sys_read_file(path, FILE_MAX, &data, &bytes, err);

	if (ret < 0)
		return ret;
	if (memchr(data, 0, bytes))
		return err_set(err, -EINVAL, "'%s' has a zero byte, and is no text", path);
	text = strndup((const char *)data, bytes);
	return add_string(strings, text, err);
}

static int add_field(struct config *c, u32 type, const struct opt *o, struct error *err)
{
	struct opts *to = &c->smbios[type];
	int ret;

	if (!strcmp(o->name, "type"))
		return 0;
	if (type == 11)
		return strcmp(o->name, "path") ? add_string(to, o->value, err)
					       : add_file(to, o->value, err);
	ret = check(c, o, err);
	if (ret == 0 && (type == 8 || type == 41))
		opts_add(to, o->name, o->value, false);
	else if (ret == 0)
		opts_set(to, o->name, o->value);
	return ret;
}

int option_smbios(struct config *c, const struct option_use *use, struct error *err)
{
	u32 type = UINT32_MAX;
	int ret = opts_get_u32(use->opts, "type", &type, err);

	if (ret < 0)
		return ret;
	if (type == UINT32_MAX)
		return err_set(err, -EINVAL, "Must specify either file= or type=");
	if (type >= SMBIOS_TYPES || !keys[type])
		return err_set(err, -EINVAL, "Don't know how to build fields for SMBIOS type %u",
			       type);
	ret = opts_check(use->opts, keys[type], err);
	if (ret == 0 && (type == 8 || type == 41))
		opts_add(&c->smbios[type], "type", "", false);
	for (unsigned i = 0; ret == 0 && i < use->opts->n; i++)
		ret = add_field(c, type, &use->opts->v[i], err);
	return ret;
}
