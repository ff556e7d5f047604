/* SMBIOS 2.8 tables: what dmidecode shows of the machine.
 *
 * DMTF DSP0134, chapters 5 (entry point) and 7 (structures).  Handed over as
 * "etc/smbios/smbios-tables" and "-anchor"; the BIOS places them and fills in the
 * address and checksums, or smbios_place does. */
#include "firmware/smbios.h"

#include "base/bytes.h"
#include "firmware/internal.h"

#include <errno.h>
#include <stdio.h>

#define TABLES_FILE "etc/smbios/smbios-tables"
#define ANCHOR_FILE "etc/smbios/smbios-anchor"

#define PLACE_END 0x100000ull

const char *const smbios_kinds[] = {"other", "unknown", "video", "scsi", "ethernet", "tokenring",
				    "sound", "pata",	"sata",	 "sas",	 NULL};

#define DIMM_BYTES_MAX (16 * GiB) /* of one memory device */
#define MAX_STRINGS    6

/* Handles: 0x100 * type, from which instances are numbered. */
#define HANDLE(type) ((u16)((type) << 8))

struct anchor {
	char signature[4];
	u8 checksum, bytes, major, minor;
	le16 max_structure;
	u8 revision, formatted[5];
	char dmi_signature[5];
	u8 dmi_checksum;
	le16 table_bytes;
	le32 table_gpa;
	le16 structures;
	u8 bcd_revision;
} __attribute__((packed));
_Static_assert(sizeof(struct anchor) == 31, "SMBIOS entry point");

struct builder {
	struct blob tables;
	unsigned structures, max_bytes;
	size_t start; /* of the structure under way */
	const char *strings[MAX_STRINGS];
	unsigned n_strings;
};

/* --- structures --------------------------------------------------------------- */

static void begin(struct builder *b, u8 type, u16 handle, u8 bytes)
{
	b->start = blob_put_zeros(&b->tables, bytes);
	b->n_strings = 0;
	b->tables.data[b->start] = type;
	b->tables.data[b->start + 1] = bytes;
	store_le16(b->tables.data + b->start + 2, handle);
}

static u8 *at(struct builder *b, size_t off)
{
	return b->tables.data + b->start + off;
}

static void set_string(struct builder *b, size_t off, const char *text)
{
	assert(b->n_strings < MAX_STRINGS && *text);
	b->strings[b->n_strings++] = text;
	*at(b, off) = (u8)b->n_strings;
}

static void finish(struct builder *b)
{
	blob_put_u8(&b->tables, 0);
	b->structures++;
	b->max_bytes = MAX(b->max_bytes, (unsigned)(b->tables.bytes - b->start));
}

static void end(struct builder *b)
{
	for (unsigned i = 0; i < b->n_strings; i++)
		blob_put(&b->tables, b->strings[i], strlen(b->strings[i]) + 1);
	if (!b->n_strings)
		blob_put_u8(&b->tables, 0);
	finish(b);
}

/* What the user says, or else this; without either the field stays 0: there is none. */
static void set_text(struct builder *b, size_t off, const struct firmware_options *opt,
		     const char *key, const char *otherwise)
{
	u8 type = b->tables.data[b->start];
	const char *text = opt->smbios ? opts_get(&opt->smbios[type], key) : NULL;

	if (!text)
		text = otherwise;
	if (text && *text)
		set_string(b, off, text);
}

static u64 number(const struct opts *o, const char *key)
{
	const char *text = o ? opts_get(o, key) : NULL;
	u64 n = 0;

	if (text)
		(void)parse_u64(text, &n); /* checked when it was said */
	return n;
}

static const struct opts *said_of(const struct firmware_options *opt, unsigned type)
{
	return opt->smbios ? &opt->smbios[type] : NULL;
}

static void put_release(struct builder *b, const struct firmware_options *opt)
{
	const char *text = opt->smbios ? opts_get(&opt->smbios[0], "release") : NULL;
	unsigned major = 0, minor = 0;

	if (text)
		sscanf(text, "%3u.%3u", &major, &minor);
	*at(b, 0x14) = (u8)major;
	*at(b, 0x15) = (u8)minor;
}

static void put_bios(struct builder *b, const struct firmware_options *opt)
{
	begin(b, 0, HANDLE(0), 0x18);
	set_text(b, 4, opt, "vendor", "cowvm");
	set_text(b, 5, opt, "version", COWVM_VERSION);
	store_le16(at(b, 6), 0xe800); /* segment */
	set_text(b, 8, opt, "date", "01/01/2024");
	store_le64(at(b, 0xa), 8); /* characteristics are not supported, */
	*at(b, 0x13) = 0x14;	   /* but: virtual machine, targeted content */
	put_release(b, opt);
	*at(b, 0x16) = *at(b, 0x17) = 0xff;
	end(b);
}

/* The first three fields are stored little-endian, see 7.2.1. */
static void set_uuid(u8 *to, const u8 *uuid)
{
	static const u8 order[16] = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};

	for (unsigned i = 0; i < 16; i++)
		to[i] = uuid[order[i]];
}

static void put_system(struct builder *b, const struct firmware_options *opt)
{
	begin(b, 1, HANDLE(1), 0x1b);
	set_text(b, 4, opt, "manufacturer", "cowvm");
	set_text(b, 5, opt, "product", "PC (i440FX + PIIX)");
	set_text(b, 6, opt, "version", COWVM_VERSION);
	set_text(b, 7, opt, "serial", NULL);
	set_text(b, 0x19, opt, "sku", NULL);
	set_text(b, 0x1a, opt, "family", NULL);
	if (opt->uuid)
		set_uuid(at(b, 8), opt->uuid);
	*at(b, 0x18) = 6; /* woken by the power switch */
	end(b);
}

/* The board has a structure only if something is said of it. */
static void put_board(struct builder *b, const struct firmware_options *opt)
{
	if (!opt->smbios || !opt->smbios[2].n)
		return;
	begin(b, 2, HANDLE(2), 0xf);
	set_text(b, 4, opt, "manufacturer", "cowvm");
	set_text(b, 5, opt, "product", NULL);
	set_text(b, 6, opt, "version", NULL);
	set_text(b, 7, opt, "serial", NULL);
	set_text(b, 8, opt, "asset", NULL);
	*at(b, 9) = 1; /* hosts the machine */
	set_text(b, 0xa, opt, "location", NULL);
	store_le16(at(b, 0xb), HANDLE(3));
	*at(b, 0xd) = 0xa; /* motherboard */
	end(b);
}

static void put_chassis(struct builder *b, const struct firmware_options *opt)
{
	begin(b, 3, HANDLE(3), 0x16);
	set_text(b, 4, opt, "manufacturer", "cowvm");
	*at(b, 5) = 1; /* other */
	set_text(b, 6, opt, "version", COWVM_VERSION);
	set_text(b, 7, opt, "serial", NULL);
	set_text(b, 8, opt, "asset", NULL);
	*at(b, 9) = *at(b, 0xa) = *at(b, 0xb) = 3; /* boot, power, thermal: safe */
	*at(b, 0xc) = 2;			   /* security: unknown */
	set_text(b, 0x15, opt, "sku", NULL);
	end(b);
}

/* "CPU 0", or with what the user says in front. */
static const char *name_of(char room[300], const struct firmware_options *opt, unsigned type,
			   unsigned i)
{
	const struct opts *said = said_of(opt, type);
	const char *key = type == 4 ? "sock_pfx" : "loc_pfx";
	const char *prefix = said ? opts_get(said, key) : NULL;

	if (!prefix)
		prefix = type == 4 ? "CPU" : "DIMM";
	snprintf(room, 300, "%s %u", prefix, i);
	return room;
}

static void put_cpu(struct builder *b, const struct firmware_options *opt, unsigned socket)
{
	u32 cores = MAX(opt->cores, 1u), threads = MAX(opt->threads, 1u);
	const struct opts *said = said_of(opt, 4);
	char name[300];

	begin(b, 4, (u16)(HANDLE(4) + socket), 0x2a);
	set_string(b, 4, name_of(name, opt, 4, socket));
	*at(b, 5) = 3; /* central processor */
	*at(b, 6) = 1; /* family: other */
	set_text(b, 7, opt, "manufacturer", "cowvm");
	store_le64(at(b, 8), number(said, "processor-id"));
	set_text(b, 0x10, opt, "version", COWVM_VERSION);
	store_le16(at(b, 0x14), (u16)number(said, "max-speed"));
	store_le16(at(b, 0x16), (u16)number(said, "current-speed"));
	set_text(b, 0x20, opt, "serial", NULL);
	set_text(b, 0x21, opt, "asset", NULL);
	set_text(b, 0x22, opt, "part", NULL);
	*at(b, 0x18) = 0x41;	      /* populated, enabled */
	*at(b, 0x19) = 1;	      /* upgrade: other */
	memset(at(b, 0x1a), 0xff, 6); /* no cache structures */
	*at(b, 0x23) = *at(b, 0x24) = (u8)MIN(cores, 255u);
	*at(b, 0x25) = (u8)MIN(cores * threads, 255u);
	store_le16(at(b, 0x26), 4); /* 64 bits */
	store_le16(at(b, 0x28), 2); /* family, again: unknown */
	end(b);
}

static void put_cpus(struct builder *b, const struct machine *m, const struct firmware_options *opt)
{
	u32 cores = MAX(opt->cores, 1u), threads = MAX(opt->threads, 1u);
	u32 sockets = DIV_ROUND_UP(m->cpus, cores * threads);

	for (u32 i = 0; i < sockets; i++)
		put_cpu(b, opt, i);
}

/* --- memory ------------------------------------------------------------------- */

static unsigned dimms_of(const struct machine *m)
{
	return (unsigned)DIV_ROUND_UP(m->ram_below_4g + m->ram_above_4g, DIMM_BYTES_MAX);
}

static void put_array(struct builder *b, const struct machine *m)
{
	u64 bytes = m->ram_below_4g + m->ram_above_4g;

	begin(b, 16, HANDLE(16), 0x17);
	*at(b, 4) = 1; /* location: other */
	*at(b, 5) = 3; /* system memory */
	*at(b, 6) = 6; /* multi-bit error correction */
	if (bytes < 2 * TiB) {
		store_le32(at(b, 7), (u32)(bytes / KiB));
	} else {
		store_le32(at(b, 7), 0x80000000); /* see the extended field */
		store_le64(at(b, 0xf), bytes);
	}
	store_le16(at(b, 0xb), 0xfffe); /* no error structure */
	store_le16(at(b, 0xd), (u16)dimms_of(m));
	end(b);
}

static void put_dimm(struct builder *b, const struct firmware_options *opt, unsigned i, u64 bytes)
{
	u16 speed = (u16)number(said_of(opt, 17), "speed");
	char name[300];

	begin(b, 17, (u16)(HANDLE(17) + i), 0x28);
	store_le16(at(b, 4), HANDLE(16));
	store_le16(at(b, 6), 0xfffe);
	memset(at(b, 8), 0xff, 4); /* widths unknown */
	store_le16(at(b, 0xc), (u16)(bytes / MiB));
	*at(b, 0xe) = 9; /* DIMM */
	set_string(b, 0x10, name_of(name, opt, 17, i));
	set_text(b, 0x11, opt, "bank", NULL);
	*at(b, 0x12) = 7;	    /* type: RAM */
	store_le16(at(b, 0x13), 2); /* detail: other */
	store_le16(at(b, 0x15), speed);
	set_text(b, 0x17, opt, "manufacturer", "cowvm");
	set_text(b, 0x18, opt, "serial", NULL);
	set_text(b, 0x19, opt, "asset", NULL);
	set_text(b, 0x1a, opt, "part", NULL);
	store_le16(at(b, 0x20), speed); /* configured */
	end(b);
}

static void put_dimms(struct builder *b, const struct machine *m,
		      const struct firmware_options *opt)
{
	u64 left = m->ram_below_4g + m->ram_above_4g;

	for (unsigned i = 0; left; i++) {
		u64 bytes = MIN(left, (u64)DIMM_BYTES_MAX);

		put_dimm(b, opt, i, bytes);
		left -= bytes;
	}
}

static void put_mapping(struct builder *b, unsigned i, u64 gpa, u64 bytes)
{
	begin(b, 19, (u16)(HANDLE(19) + i), 0x1f);
	if (gpa + bytes <= 4 * TiB) {
		store_le32(at(b, 4), (u32)(gpa / KiB));
		store_le32(at(b, 8), (u32)((gpa + bytes) / KiB - 1));
	} else {
		memset(at(b, 4), 0xff, 8);
		store_le64(at(b, 0xf), gpa);
		store_le64(at(b, 0x17), gpa + bytes - 1);
	}
	store_le16(at(b, 0xc), HANDLE(16));
	*at(b, 0xe) = 1; /* one device wide */
	end(b);
}

static void put_memory(struct builder *b, const struct machine *m,
		       const struct firmware_options *opt)
{
	put_array(b, m);
	put_dimms(b, m, opt);
	put_mapping(b, 0, 0, m->ram_below_4g);
	if (m->ram_above_4g)
		put_mapping(b, 1, 4 * GiB, m->ram_above_4g);
}

/* --- what there is only when somebody says so ----------------------------------- */

/* Use n of an option that may be given again: its keys, up to the next "type". */
static bool nth_use(const struct opts *all, unsigned n, struct opts *out)
{
	unsigned i = 0, first;

	for (; all && i < all->n; i++)
		if (!strcmp(all->v[i].name, "type") && n-- == 0)
			break;
	if (!all || i == all->n)
		return false;
	first = ++i;
	while (i < all->n && strcmp(all->v[i].name, "type") != 0)
		i++;
	*out = (struct opts){all->v + first, i - first};
	return true;
}

static void set_said(struct builder *b, size_t off, const struct opts *o, const char *key)
{
	const char *text = opts_get(o, key);

	if (text && *text)
		set_string(b, off, text);
}

static void put_connectors(struct builder *b, const struct firmware_options *opt)
{
	struct opts o;

	for (unsigned i = 0; nth_use(said_of(opt, 8), i, &o); i++) {
		begin(b, 8, (u16)(HANDLE(8) + i), 9);
		set_said(b, 4, &o, "internal_reference");
		set_said(b, 6, &o, "external_reference");
		*at(b, 7) = (u8)number(&o, "connector_type");
		*at(b, 8) = (u8)number(&o, "port_type");
		end(b);
	}
}

/* More of them than other structures have strings. */
static void put_oem_strings(struct builder *b, const struct firmware_options *opt)
{
	const struct opts *said = said_of(opt, 11);

	if (!said || !said->n)
		return;
	begin(b, 11, HANDLE(11), 5);
	*at(b, 4) = (u8)said->n;
	for (unsigned i = 0; i < said->n; i++)
		blob_put(&b->tables, said->v[i].value, strlen(said->v[i].value) + 1);
	finish(b);
}

static int put_onboard(struct builder *b, const struct firmware_options *opt, struct error *err)
{
	struct opts o;

	for (unsigned i = 0; nth_use(said_of(opt, 41), i, &o); i++) {
		const char *kind = opts_get(&o, "kind"), *id = opts_get(&o, "pcidev");
		int devfn = id ? opt->pci_place(opt->pci_arg, id) : 0;

		if (devfn < 0)
			return err_set(err, devfn, "No PCI device '%s' for SMBIOS type 41", id);
		begin(b, 41, (u16)(HANDLE(41) + i), 0xb);
		set_said(b, 4, &o, "designation");
		*at(b, 5) = (u8)(0x81 + (kind ? parse_choice(kind, smbios_kinds) : 0));
		*at(b, 6) = (u8)number(&o, "instance");
		*at(b, 0xa) = (u8)devfn; /* segment 0, bus 0 */
		end(b);
	}
	return 0;
}

/* --- handing over ------------------------------------------------------------- */

static void sum_anchor(struct anchor *a)
{
	size_t dmi = offsetof(struct anchor, dmi_signature);

	a->checksum = a->dmi_checksum = 0;
	a->dmi_checksum = (u8)-firmware_sum((u8 *)a + dmi, sizeof(*a) - dmi);
	a->checksum = (u8)-firmware_sum(a, sizeof(*a));
}

static void add_anchor(struct firmware *f, const struct builder *b)
{
	struct anchor a = {
		.signature = {'_', 'S', 'M', '_'},
		.bytes = sizeof(a),
		.major = 2,
		.minor = 8,
		.max_structure = le16_of((u16)b->max_bytes),
		.dmi_signature = {'_', 'D', 'M', 'I', '_'},
		.table_bytes = le16_of((u16)b->tables.bytes),
		.structures = le16_of((u16)b->structures),
		.bcd_revision = 0x28,
	};

	assert(b->tables.bytes <= UINT16_MAX);
	sum_anchor(&a);
	fwcfg_add_file(f->fw, ANCHOR_FILE, &a, sizeof(a));
}

int smbios_add_files(struct firmware *f, const struct firmware_options *opt, struct error *err)
{
	struct builder b = {.structures = 0};
	int ret;

	put_bios(&b, opt);
	put_system(&b, opt);
	put_board(&b, opt);
	put_chassis(&b, opt);
	put_cpus(&b, f->machine, opt);
	put_connectors(&b, opt);
	put_oem_strings(&b, opt);
	put_memory(&b, f->machine, opt);
	begin(&b, 32, HANDLE(32), 0xb); /* boot status: no errors */
	end(&b);
	ret = put_onboard(&b, opt, err);
	begin(&b, 127, HANDLE(127), 4); /* end of table */
	end(&b);
	if (ret == 0 && b.tables.bytes > UINT16_MAX)
		ret = err_set(err, -EFBIG, "the SMBIOS tables have %zu bytes, expected at most %u",
			      b.tables.bytes, UINT16_MAX);
	if (ret == 0) {
		add_anchor(f, &b);
		fwcfg_add_file(f->fw, TABLES_FILE, b.tables.data, b.tables.bytes);
	}
	blob_fini(&b.tables);
	return ret;
}

int smbios_place(struct firmware *f, u64 *next)
{
	struct mem *mem = f->machine->mem;
	size_t anchor_bytes, bytes;
	const void *tables = fwcfg_file(f->fw, TABLES_FILE, &bytes);
	const void *anchor = fwcfg_file(f->fw, ANCHOR_FILE, &anchor_bytes);
	u64 gpa = align_up(*next, 16);
	struct anchor a;
	int ret;

	assert(tables && anchor && anchor_bytes == sizeof(a));
	memcpy(&a, anchor, sizeof(a));
	*next = gpa + align_up(sizeof(a), 16) + bytes;
	if (*next > PLACE_END)
		return -ENOSPC;
	a.table_gpa = le32_of((u32)(gpa + align_up(sizeof(a), 16)));
	sum_anchor(&a);
	ret = mem_write(mem, gpa, &a, sizeof(a));
	return ret < 0 ? ret : mem_write(mem, le32_get(a.table_gpa), tables, bytes);
}
