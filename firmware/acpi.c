/* ACPI tables of `pc`: FACS, DSDT, FADT, MADT, SSDT, RSDT, XSDT and RSDP.
 *
 * ACPI 6.4, chapter 5.  They form one blob, with offsets where addresses belong; the
 * loader script has the BIOS put it into memory, turn offsets into addresses and
 * redo checksums.  The DSDT is compiled from dsdt.asl, with a few values filled in;
 * the SSDT lists the processors. */
#define _GNU_SOURCE
#include "base/bytes.h"
#include "firmware/acpi_internal.h"

#include <stdio.h>

static const u8 dsdt_aml[] = {
#include "firmware/dsdt.hex"
};

#define SCI_IRQ	      9
#define SMI_PORT      0xb2
#define ACPI_ENABLE   0xf1
#define ACPI_DISABLE  0xf0
#define RESET_PORT    0xcf9
#define RESET_VALUE   0x0f
#define CENTURY_INDEX 0x32 /* in CMOS memory */

#define FADT_WBINVD	   (1u << 0)
#define FADT_PROC_C1	   (1u << 2)
#define FADT_NO_SLEEP_KEY  (1u << 5)
#define FADT_RESET_REG	   (1u << 10)
#define FADT_PLATFORM_TIME (1u << 15) /* prefer the power management timer to the TSC's */

#define BOOT_LEGACY_DEVICES 1
#define BOOT_8042	    2
#define BOOT_NO_VGA	    4

#define LAPIC_GPA  0xfee00000u
#define IOAPIC_GPA 0xfec00000u

struct header {
	char signature[4];
	le32 bytes;
	u8 revision, checksum;
	char oem_id[6], oem_table_id[8];
	le32 oem_revision;
	char creator[4];
	le32 creator_revision;
} __attribute__((packed));

/* Generic address structure: a port. */
struct gas {
	u8 space, bits, bit_offset, access;
	le64 addr;
} __attribute__((packed));

struct fadt {
	struct header header;
	le32 facs, dsdt;
	u8 reserved0, profile;
	le16 sci;
	le32 smi_port;
	u8 acpi_enable, acpi_disable, s4bios, pstate;
	le32 pm1a_event, pm1b_event, pm1a_control, pm1b_control, pm2_control, timer, gpe0, gpe1;
	u8 pm1_event_bytes, pm1_control_bytes, pm2_control_bytes, timer_bytes, gpe0_bytes,
		gpe1_bytes, gpe1_base, cst;
	le16 c2_latency, c3_latency, flush_size, flush_stride;
	u8 duty_offset, duty_width, day_alarm, month_alarm, century;
	le16 boot_flags;
	u8 reserved1;
	le32 flags;
	struct gas reset;
	u8 reset_value;
	le16 arm_flags;
	u8 minor;
	le64 x_facs, x_dsdt;
	struct gas x_pm1a_event, x_pm1b_event, x_pm1a_control, x_pm1b_control, x_pm2_control,
		x_timer, x_gpe0, x_gpe1;
} __attribute__((packed));

struct rsdp {
	char signature[8];
	u8 checksum;
	char oem_id[6];
	u8 revision;
	le32 rsdt, bytes;
	le64 xsdt;
	u8 checksum2, reserved[3];
} __attribute__((packed));

_Static_assert(sizeof(struct header) == ACPI_HEADER_BYTES, "ACPI table header");
_Static_assert(sizeof(struct fadt) == 244, "FADT of ACPI 2 to 4");
_Static_assert(sizeof(struct rsdp) == 36, "RSDP of ACPI 2");

/* The tables under way, and what links them. */
struct builder {
	struct machine *machine;
	const struct firmware_options *opt;
	struct blob tables, script;
	u32 listed[8]; /* what RSDT and XSDT name */
	unsigned n_listed;
};

size_t acpi_begin(struct blob *b, const char signature[4], u8 revision, const char id[8])
{
	struct header h = {.revision = revision,
			   .oem_id = "COWVM ",
			   .oem_revision = le32_of(1),
			   .creator = {'C', 'O', 'W', 'V'},
			   .creator_revision = le32_of(1)};

	memcpy(h.signature, signature, sizeof(h.signature));
	memcpy(h.oem_table_id, id, sizeof(h.oem_table_id));
	return blob_put(b, &h, sizeof(h));
}

void acpi_end(struct blob *b, size_t table, struct blob *script)
{
	struct header *h = (struct header *)(b->data + table);
	u32 bytes = (u32)(b->bytes - table);

	h->bytes = le32_of(bytes);
	h->checksum = 0;
	h->checksum = (u8)-firmware_sum(h, bytes);
	loader_checksum(script, ACPI_TABLES_FILE, (u32)table + ACPI_CHECKSUM_AT, (u32)table, bytes);
}

static u32 put_facs(struct builder *b)
{
	u8 facs[64] = "FACS";

	facs[4] = sizeof(facs);
	facs[32] = 1; /* version */
	return (u32)blob_put(&b->tables, facs, sizeof(facs));
}

/* --- what depends on the machine ---------------------------------------------- */

/* Fill in Name (name, dword) of the AML from `at` on: NameOp, name, DWordPrefix, value. */
static void fill_in(struct blob *b, size_t at, const char name[4], u32 value)
{
	const u8 pattern[] = {0x08, (u8)name[0], (u8)name[1], (u8)name[2], (u8)name[3], 0x0c};
	u8 *p = memmem(b->data + at, b->bytes - at, pattern, sizeof(pattern));

	assert(p);
	store_le32(p + sizeof(pattern), value);
}

static u32 put_dsdt(struct builder *b)
{
	size_t at = blob_put(&b->tables, dsdt_aml, sizeof(dsdt_aml));
	const struct machine *m = b->machine;

	fill_in(&b->tables, at, "P32S", (u32)DIV_ROUND_UP(m->ram_below_4g, MiB));
	fill_in(&b->tables, at, "P64S", (u32)(align_up(4 * GiB + m->ram_above_4g, GiB) / MiB));
	fill_in(&b->tables, at, "CM1P", b->opt->has_serial[0]);
	fill_in(&b->tables, at, "CM2P", b->opt->has_serial[1]);
	acpi_end(&b->tables, at, &b->script);
	return (u32)at;
}

static void put_cpu_device(struct blob *b, u32 i)
{
	char name[5];
	size_t device;

	snprintf(name, sizeof(name), "C%03X", i & 0xfff);
	device = aml_begin_device(b, name);
	aml_name_string(b, "_HID", "ACPI0007");
	aml_name_u32(b, "_UID", i);
	aml_end(b, device);
}

static u32 put_ssdt(struct builder *b)
{
	size_t at = acpi_begin(&b->tables, "SSDT", 2, "COWVM-PC");
	size_t scope = aml_begin_scope(&b->tables, "_SB_");

	/* An absent processor has no object: nothing could ever make it present, and a
	 * guest would try to use what says nothing to the contrary. */
	for (u32 i = 0; i < b->machine->cpus; i++)
		put_cpu_device(&b->tables, i);
	aml_end(&b->tables, scope);
	acpi_end(&b->tables, at, &b->script);
	return (u32)at;
}

/* --- fixed hardware ----------------------------------------------------------- */

static struct gas port(u16 addr, u8 bytes)
{
	return (struct gas){.space = 1, .bits = (u8)(bytes * 8), .addr = le64_of(addr)};
}

static void fill_ports(struct fadt *t)
{
	t->pm1a_event = le32_of(FIRMWARE_PM_BASE);
	t->pm1a_control = le32_of(FIRMWARE_PM_BASE + 4);
	t->timer = le32_of(FIRMWARE_PM_BASE + 8);
	t->gpe0 = le32_of(FIRMWARE_PM_BASE + 0xc);
	t->pm1_event_bytes = t->timer_bytes = t->gpe0_bytes = 4;
	t->pm1_control_bytes = 2;
	t->x_pm1a_event = port(FIRMWARE_PM_BASE, 4);
	t->x_pm1a_control = port(FIRMWARE_PM_BASE + 4, 2);
	t->x_timer = port(FIRMWARE_PM_BASE + 8, 4);
	t->x_gpe0 = port(FIRMWARE_PM_BASE + 0xc, 4);
}

static u32 put_fadt(struct builder *b, u32 facs, u32 dsdt)
{
	size_t at = acpi_begin(&b->tables, "FACP", 3, "COWVM-PC");
	u16 boot = BOOT_LEGACY_DEVICES | BOOT_8042 | (b->opt->has_vga ? 0 : BOOT_NO_VGA);
	struct fadt *t;

	blob_put_zeros(&b->tables, sizeof(*t) - sizeof(struct header));
	t = (struct fadt *)(b->tables.data + at);
	t->facs = le32_of(facs);
	t->dsdt = le32_of(dsdt);
	t->x_dsdt = le64_of(dsdt);
	t->sci = le16_of(SCI_IRQ);
	t->smi_port = le32_of(SMI_PORT);
	t->acpi_enable = ACPI_ENABLE;
	t->acpi_disable = ACPI_DISABLE;
	t->c2_latency = t->c3_latency = le16_of(0xfff); /* no such states */
	t->century = CENTURY_INDEX;
	t->boot_flags = le16_of(boot);
	t->flags = le32_of(FADT_WBINVD | FADT_PROC_C1 | FADT_NO_SLEEP_KEY | FADT_RESET_REG |
			   FADT_PLATFORM_TIME);
	t->reset = port(RESET_PORT, 1);
	t->reset_value = RESET_VALUE;
	fill_ports(t);
	loader_pointer(&b->script, ACPI_TABLES_FILE, (u32)at + offsetof(struct fadt, facs), 4,
		       ACPI_TABLES_FILE);
	loader_pointer(&b->script, ACPI_TABLES_FILE, (u32)at + offsetof(struct fadt, dsdt), 4,
		       ACPI_TABLES_FILE);
	loader_pointer(&b->script, ACPI_TABLES_FILE, (u32)at + offsetof(struct fadt, x_dsdt), 8,
		       ACPI_TABLES_FILE);
	acpi_end(&b->tables, at, &b->script);
	return (u32)at;
}

/* --- interrupt controllers ---------------------------------------------------- */

static void put_cpus(struct builder *b)
{
	for (u32 i = 0; i < b->machine->max_cpus; i++) {
		const u8 lapic[8] = {0, 8, (u8)i, (u8)machine_apic_id(b->machine, i),
				     i < b->machine->cpus};

		blob_put(&b->tables, lapic, sizeof(lapic));
	}
}

/* ISA interrupt -> IOAPIC input, where it is not the same or not edge-triggered. */
static void put_override(struct builder *b, u8 irq, u8 input, u16 flags)
{
	const u8 entry[10] = {2, 10, 0, irq, input, 0, 0, 0, (u8)flags};

	blob_put(&b->tables, entry, sizeof(entry));
}

static u32 put_madt(struct builder *b)
{
	static const u8 level_irqs[] = {5, SCI_IRQ, 10, 11}; /* PCI links and the SCI */
	static const u8 nmi[6] = {4, 6, 0xff, 0, 0, 1};	     /* LINT1 of every processor */
	size_t at = acpi_begin(&b->tables, "APIC", 1, "COWVM-PC");
	u8 lapic[8] = {0}, ioapic[12] = {1, 12};

	store_le32(lapic, LAPIC_GPA);
	lapic[4] = 1; /* there are 8259s, too */
	blob_put(&b->tables, lapic, sizeof(lapic));
	put_cpus(b);
	store_le32(ioapic + 4, IOAPIC_GPA);
	blob_put(&b->tables, ioapic, sizeof(ioapic));
	put_override(b, 0, 2, 0);
	for (unsigned i = 0; i < sizeof(level_irqs); i++)
		put_override(b, level_irqs[i], level_irqs[i], 0xd); /* level, active high */
	blob_put(&b->tables, nmi, sizeof(nmi));
	acpi_end(&b->tables, at, &b->script);
	return (u32)at;
}

/* --- the roots ---------------------------------------------------------------- */

/* RSDT (pointers of 4 bytes) or XSDT (8). */
static u32 put_list(struct builder *b, const char signature[4], u8 size)
{
	size_t at = acpi_begin(&b->tables, signature, 1, "COWVM-PC");

	for (unsigned i = 0; i < b->n_listed; i++) {
		le64 offset = le64_of(b->listed[i]);
		size_t entry = blob_put(&b->tables, &offset, size);

		loader_pointer(&b->script, ACPI_TABLES_FILE, (u32)entry, size, ACPI_TABLES_FILE);
	}
	acpi_end(&b->tables, at, &b->script);
	return (u32)at;
}

static void add_rsdp(struct builder *b, struct fwcfg *fw, u32 rsdt, u32 xsdt)
{
	struct rsdp r = {.signature = {'R', 'S', 'D', ' ', 'P', 'T', 'R', ' '},
			 .oem_id = {'C', 'O', 'W', 'V', 'M', ' '},
			 .revision = 2,
			 .rsdt = le32_of(rsdt),
			 .bytes = le32_of(sizeof(r)),
			 .xsdt = le64_of(xsdt)};
	struct blob *s = &b->script;

	loader_allocate(s, ACPI_RSDP_FILE, 16, true);
	loader_pointer(s, ACPI_RSDP_FILE, offsetof(struct rsdp, rsdt), 4, ACPI_TABLES_FILE);
	loader_pointer(s, ACPI_RSDP_FILE, offsetof(struct rsdp, xsdt), 8, ACPI_TABLES_FILE);
	/* The first checksum covers what ACPI 1.0 knew, the second the whole. */
	loader_checksum(s, ACPI_RSDP_FILE, offsetof(struct rsdp, checksum), 0, 20);
	loader_checksum(s, ACPI_RSDP_FILE, offsetof(struct rsdp, checksum2), 0, sizeof(r));
	fwcfg_add_file(fw, ACPI_RSDP_FILE, &r, sizeof(r));
}

void acpi_add_files(struct firmware *f, const struct firmware_options *opt)
{
	struct builder b = {.machine = f->machine, .opt = opt};
	u32 facs, dsdt, rsdt, xsdt;

	assert(f->machine->max_cpus >= 1 && f->machine->max_cpus <= 255);
	loader_allocate(&b.script, ACPI_TABLES_FILE, ACPI_FACS_ALIGNMENT, false);
	facs = put_facs(&b);
	dsdt = put_dsdt(&b);
	b.listed[b.n_listed++] = put_fadt(&b, facs, dsdt);
	b.listed[b.n_listed++] = put_madt(&b);
	b.listed[b.n_listed++] = put_ssdt(&b);
	rsdt = put_list(&b, "RSDT", 4);
	xsdt = put_list(&b, "XSDT", 8);
	add_rsdp(&b, f->fw, rsdt, xsdt);
	fwcfg_add_file(f->fw, ACPI_TABLES_FILE, b.tables.data, b.tables.bytes);
	fwcfg_add_file(f->fw, ACPI_LOADER_FILE, b.script.data, b.script.bytes);
	blob_fini(&b.tables);
	blob_fini(&b.script);
}
