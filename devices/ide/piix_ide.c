/* PIIX3 IDE, PCI 8086:7010: legacy ports of two channels, bus master registers.
 *
 * Intel 82371SB (PIIX3) datasheet, 2.3 (PCI configuration) and 2.5 (bus master);
 * ports and interrupts are the legacy ones: 1F0-1F7, 3F6, IRQ 14 and 170-177, 376,
 * IRQ 15.  They answer while the I/O bit of the PCI command and the decode enable
 * of the channel's IDETIM are set; unlike the chip we come out of reset with
 * decode enabled, for kernels that are booted without firmware.
 * Thread: handlers on vCPUs with the device's lock, which completions of both
 * channels take on the drives' loop threads. */
#include "devices/ide/ide.h"
#include "devices/ide/piix_ide.h"

#include <errno.h>
#include <stdio.h>

#define IDETIM_PRIMARY	 0x40 /* 16 bits each */
#define IDETIM_SECONDARY 0x42
#define IDETIM_DECODE	 0x80 /* in the high byte */
#define SIDETIM		 0x44
#define LEGACY_PRIORITY	 10

static const struct {
	u16 command, control;
	u32 gsi;
	u8 timing;
} legacy[2] = {
	{0x1f0, 0x3f6, 14, IDETIM_PRIMARY},
	{0x170, 0x376, 15, IDETIM_SECONDARY},
};

struct piix_ide *piix_ide_of(struct device *dev)
{
	assert(dev->cls == &piix_ide_class);
	return container_of(dev, struct piix_ide, pci.dev);
}

/* --- what the channels ask for ---------------------------------------------------- */

static struct piix_channel *channel_of(struct ata_channel *ch)
{
	return container_of(ch, struct piix_channel, ata);
}

static void set_irq(struct ata_channel *ch, bool level)
{
	struct piix_channel *c = channel_of(ch);

	if (level)
		bmdma_irq(&c->bm);
	irq_line_set(&c->line, level);
}

static s64 dma_map(struct ata_channel *ch, bool to_memory, u32 max, u32 unit)
{
	struct piix_channel *c = channel_of(ch);

	if (!pci_bus_master(&c->ide->pci))
		return -EAGAIN; /* config_written tries again */
	return bmdma_map(&c->bm, to_memory, max, unit);
}

static void dma_moved(struct ata_channel *ch, bool to_memory, u32 bytes)
{
	bmdma_moved(&channel_of(ch)->bm, to_memory, bytes);
}

static void io_error(struct ata_channel *ch)
{
	struct piix_channel *c = container_of(ch, struct piix_channel, ata);

	machine_request(c->ide->pci.dev.machine, MACHINE_IO_ERROR, 0);
}

static const struct ata_ops channel_ops = {set_irq, dma_map, dma_moved, io_error};

/* --- ports ------------------------------------------------------------------------ */

static bool is_decoded(const struct piix_channel *c)
{
	const struct piix_ide *ide = c->ide;
	unsigned i = (unsigned)(c - ide->channels);

	return ide->pci.config[0x04] & 1 && ide->pci.config[legacy[i].timing + 1] & IDETIM_DECODE;
}

static u64 command_read(void *owner, u64 off, unsigned size)
{
	struct piix_channel *c = owner;

	return is_decoded(c) ? ata_read(&c->ata, (unsigned)off, size) : UINT32_MAX;
}

static void command_write(void *owner, u64 off, unsigned size, u64 value)
{
	struct piix_channel *c = owner;

	if (is_decoded(c))
		ata_write(&c->ata, (unsigned)off, size, (u32)value);
}

static u64 control_read(void *owner, u64 off, unsigned size)
{
	struct piix_channel *c = owner;

	return is_decoded(c) ? ata_alt_status(&c->ata) : UINT8_MAX;
}

static void control_write(void *owner, u64 off, unsigned size, u64 value)
{
	struct piix_channel *c = owner;

	if (is_decoded(c))
		ata_control(&c->ata, (u8)value);
}

static const struct bus_ops command_ops = {command_read, command_write, 1, 4};
static const struct bus_ops control_ops = {control_read, control_write, 1, 1};

static u64 bm_read(void *owner, u64 off, unsigned size)
{
	struct piix_ide *ide = piix_ide_of(owner);
	u64 value = 0;

	for (unsigned i = 0; i < size; i++)
		value |= (u64)bmdma_read(&ide->channels[(off + i) >> 3 & 1].bm, (off + i) & 7)
			 << 8 * i;
	return value;
}

static void bm_write(void *owner, u64 off, unsigned size, u64 value)
{
	struct piix_ide *ide = piix_ide_of(owner);

	for (unsigned i = 0; i < size; i++)
		bmdma_write(&ide->channels[(off + i) >> 3 & 1].bm, (off + i) & 7,
			    (u8)(value >> 8 * i));
}

static const struct bus_ops bm_ops = {bm_read, bm_write, 1, 4};

/* --- the function ----------------------------------------------------------------- */

/* The guest may have enabled what a transfer waits for. */
static void config_written(struct pci_dev *pd, u8 off, unsigned size)
{
	struct piix_ide *ide = container_of(pd, struct piix_ide, pci);

	if (off > 0x05 || !pci_bus_master(pd))
		return;
	for (unsigned i = 0; i < 2; i++)
		ata_dma_started(&ide->channels[i].ata);
}

static int map_ports(struct piix_channel *c, unsigned i, struct error *err)
{
	struct device *dev = &c->ide->pci.dev;
	const struct bus_place command = {c->id, legacy[i].command, 8, LEGACY_PRIORITY};
	const struct bus_place control = {c->id, legacy[i].control, 1, LEGACY_PRIORITY};
	int ret = bus_map(dev->machine->pio, &c->command, &command, &command_ops, c, &dev->lock);

	if (ret == 0)
		ret = bus_map(dev->machine->pio, &c->control, &control, &control_ops, c,
			      &dev->lock);
	if (ret < 0)
		return err_set_errno(err, ret, "%s: cannot map its ports", c->id);
	return 0;
}

static void fini_channels(struct piix_ide *ide)
{
	for (unsigned i = 0; i < 2; i++) {
		struct piix_channel *c = &ide->channels[i];

		bus_unmap(c->command);
		bus_unmap(c->control);
		ata_channel_fini(&c->ata);
		irq_line_set(&c->line, false);
	}
}

static int init_channels(struct piix_ide *ide, struct error *err)
{
	struct device *dev = &ide->pci.dev;
	int ret = 0;

	for (unsigned i = 0; i < 2; i++) {
		struct piix_channel *c = &ide->channels[i];

		c->ide = ide;
		snprintf(c->id, sizeof(c->id), "%s.%u", dev->id, i);
		ata_channel_init(&c->ata, &channel_ops, &dev->lock, c->id);
		c->bm.ch = &c->ata;
		c->bm.mem = dev->machine->mem;
		irq_line_init(&c->line, dev->machine->irq, legacy[i].gsi);
	}
	for (unsigned i = 0; i < 2 && ret == 0; i++)
		ret = map_ports(&ide->channels[i], i, err);
	if (ret < 0)
		fini_channels(ide);
	return ret;
}

static int piix_ide_init(struct device *dev, struct error *err)
{
	static const struct pci_ids ids = {
		.vendor = 0x8086,
		.device = 0x7010,
		.subsystem_vendor = 0x1af4,
		.subsystem = 0x1100,
		.class_code = 0x010180, /* IDE, bus master, both channels legacy */
	};
	struct piix_ide *ide = piix_ide_of(dev);
	int ret = pci_dev_init(&ide->pci, &ids, err);

	if (ret < 0)
		return ret;
	ret = init_channels(ide, err);
	if (ret < 0) {
		pci_dev_fini(&ide->pci);
		return ret;
	}
	ide->pci.config_written = config_written;
	memset(ide->pci.write_mask + IDETIM_PRIMARY, 0xff, 5);
	pci_add_bar(&ide->pci, 4, PCI_BAR_IO, 16, &bm_ops, NULL);
	return 0;
}

static void piix_ide_reset(struct device *dev)
{
	struct piix_ide *ide = piix_ide_of(dev);

	pci_dev_reset(&ide->pci);
	memset(ide->pci.config + IDETIM_PRIMARY, 0, 5);
	ide->pci.config[IDETIM_PRIMARY + 1] = IDETIM_DECODE;
	ide->pci.config[IDETIM_SECONDARY + 1] = IDETIM_DECODE;
	for (unsigned i = 0; i < 2; i++) {
		bmdma_reset(&ide->channels[i].bm);
		ata_channel_reset(&ide->channels[i].ata);
	}
}

static void piix_ide_fini(struct device *dev)
{
	struct piix_ide *ide = piix_ide_of(dev);

	for (unsigned i = 0; i < 4; i++)
		assert(!ide->channels[i / 2].ata.drives[i % 2]);
	fini_channels(ide);
	pci_dev_fini(&ide->pci);
}

static void piix_ide_pause(struct device *dev)
{
	for (unsigned i = 0; i < 2; i++)
		ata_channel_pause(&piix_ide_of(dev)->channels[i].ata);
}

static void piix_ide_resume(struct device *dev)
{
	for (unsigned i = 0; i < 2; i++)
		ata_channel_resume(&piix_ide_of(dev)->channels[i].ata);
}

/* --- state ------------------------------------------------------------------------ */

static const struct state_field channel_state[] = {
	STATE_STRUCT(struct piix_channel, ata, ata_channel_state),
	STATE_STRUCT(struct piix_channel, bm, bmdma_state),
	STATE_END,
};

static const struct state_field piix_ide_state[] = {
	STATE_STRUCT(struct piix_ide, pci, pci_dev_state),
	STATE_STRUCT_ARRAY(struct piix_ide, channels, channel_state),
	STATE_END,
};

static int piix_ide_check(const void *loaded, struct error *err)
{
	const struct piix_ide *ide = loaded;

	for (unsigned i = 0; i < 2; i++) {
		if (ata_channel_check(&ide->channels[i].ata, err) < 0 ||
		    bmdma_check(&ide->channels[i].bm, err) < 0)
			return err_prefix(err, "piix3-ide channel %u", i);
	}
	return 0;
}

static void piix_ide_pre_save(struct device *dev)
{
	for (unsigned i = 0; i < 2; i++)
		assert(!piix_ide_of(dev)->channels[i].ata.in_flight);
}

static void piix_ide_post_load(struct device *dev)
{
	struct piix_ide *ide = piix_ide_of(dev);

	pci_dev_post_load(&ide->pci);
	for (unsigned i = 0; i < 2; i++) {
		u8 status = ide->channels[i].bm.status;

		ata_channel_post_load(&ide->channels[i].ata);
		ide->channels[i].bm.status = status; /* raising the line again is no event */
	}
}

const struct device_class piix_ide_class = {
	.name = "piix3-ide",
	.help = "PIIX3 IDE controller with two channels",
	.size = sizeof(struct piix_ide),
	.bus = DEVICE_ON_PCI,
	.init = piix_ide_init,
	.reset = piix_ide_reset,
	.fini = piix_ide_fini,
	.state = piix_ide_state,
	.state_check = piix_ide_check,
	.pre_save = piix_ide_pre_save,
	.post_load = piix_ide_post_load,
	.pause = piix_ide_pause,
	.resume = piix_ide_resume,
};
