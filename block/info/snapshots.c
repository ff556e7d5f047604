/* The list of internal snapshots as `snapshot -l` and `info` show it. */
#include "block/info/info.h"

#include "block/driver.h"
#include "block/qcow2/snapshot.h"

#include <stdio.h>
#include <time.h>

#include <jansson.h>

/* The reference keeps so many bytes of an id and of a name. */
#define ID_BYTES   QCOW2_SNAPSHOT_ID
#define NAME_BYTES QCOW2_SNAPSHOT_NAME

static u32 list_of(struct image *img, const struct qcow2_snapshot **list)
{
	*list = NULL;
	return img->driver == &qcow2_driver ? qcow2_snapshots(img, list) : 0;
}

static void print_one(FILE *out, const struct qcow2_snapshot *s)
{
	char row[QCOW2_SNAPSHOT_ROW];

	qcow2_snapshot_row(s, s->id, row);
	fprintf(out, "%s\n", row);
}

void info_print_snapshots(FILE *out, struct image *img)
{
	const struct qcow2_snapshot *list;
	u32 n = list_of(img, &list);

	if (!n)
		return;
	fprintf(out, "Snapshot list:\n%-10s%-17s%8s%20s%13s%11s\n", "ID", "TAG", "VM SIZE", "DATE",
		"VM CLOCK", "ICOUNT");
	for (u32 i = 0; i < n; i++)
		print_one(out, &list[i]);
}

/* Text from an image: what is no UTF-8 becomes question marks. */
static json_t *json_text(const char *text, size_t most)
{
	AUTO_FREE char *copy = xasprintf("%.*s", (int)most, text);
	json_t *value = json_string(copy);

	if (value)
		return value;
	for (char *p = copy; *p; p++)
		if ((unsigned char)*p >= 0x80)
			*p = '?';
	return json_string(copy);
}

json_t *info_snapshot_json(const struct qcow2_snapshot *s)
{
	json_t *o = json_object();
	u64 second = NS_PER_SEC;

	if (s->icount != QCOW2_NO_ICOUNT)
		json_object_set_new(o, "icount", json_integer((json_int_t)s->icount));
	json_object_set_new(o, "vm-clock-nsec",
			    json_integer((json_int_t)(s->vm_clock_ns % second)));
	json_object_set_new(o, "name", json_text(s->name, NAME_BYTES));
	json_object_set_new(o, "date-sec", json_integer(s->date_sec));
	json_object_set_new(o, "date-nsec", json_integer(s->date_nsec));
	json_object_set_new(o, "vm-clock-sec", json_integer((json_int_t)(s->vm_clock_ns / second)));
	json_object_set_new(o, "id", json_text(s->id, ID_BYTES));
	json_object_set_new(o, "vm-state-size", json_integer((json_int_t)s->vm_state_bytes));
	return o;
}

json_t *info_snapshots_json(struct image *img)
{
	const struct qcow2_snapshot *list;
	u32 n = list_of(img, &list);
	json_t *all = n ? json_array() : NULL;

	for (u32 i = 0; i < n; i++)
		json_array_append_new(all, info_snapshot_json(&list[i]));
	return all;
}
