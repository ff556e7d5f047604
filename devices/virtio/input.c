/* virtio-input: a keyboard, a mouse, a tablet.  virtio 1.2, section 5.8.
 *
 * Queue 0 takes events to the driver, each group ended by a SYN, queue 1 brings the
 * keyboard's lights.  Events wait in the device until the driver has buffers; a group
 * that has no room there is dropped as a whole.
 * Thread: everything runs with the device's lock held; events come from any thread,
 * kicks on the main loop.  Nothing is in flight between calls, so stopping waits for
 * nobody. */
#include "devices/virtio/input_int.h"

#include "base/bytes.h"
#include "base/io.h"

#include <errno.h>

#define VIRTIO_TYPE_INPUT 18
#define QUEUE_SIZE	  64

enum { Q_EVENTS, Q_STATUS };

static struct virtio_input *vinput_of(struct virtio_pci *vp)
{
	return container_of(vp, struct virtio_input, vp);
}

static struct virtio_input *of_device(struct device *dev)
{
	return container_of(dev, struct virtio_input, vp.pd.dev);
}

/* --- queues ------------------------------------------------------------------------ */

/* The next buffer; false: none, or the queue has just broken. */
static bool take_buffer(struct virtio_input *v, unsigned queue, struct virtq_chain *c)
{
	if (!served_pop_or_ask(&v->served, queue, c))
		return false;
	if ((queue == Q_EVENTS ? c->in_bytes : c->out_bytes) >= VINPUT_EVENT_BYTES)
		return true;
	served_refuse(&v->served, queue, "a buffer is too small for an event");
	return false;
}

static void send_events(struct virtio_input *v)
{
	struct virtq_chain c;
	u32 sent = 0;

	while (sent < v->n_events && take_buffer(v, Q_EVENTS, &c)) {
		const struct vinput_event *e = &v->events[sent++];
		u8 bytes[VINPUT_EVENT_BYTES];

		store_le16(bytes, e->type);
		store_le16(bytes + 2, e->code);
		store_le32(bytes + 4, e->value);
		virtq_push(&v->vp.queues[Q_EVENTS].vq, c.head,
			   served_put(&v->served, &c, bytes, sizeof(bytes)));
	}
	v->n_events -= sent;
	memmove(v->events, v->events + sent, v->n_events * sizeof(v->events[0]));
	memset(v->events + v->n_events, 0, sent * sizeof(v->events[0]));
	served_flush(&v->served, Q_EVENTS);
}

static void take_light(struct virtio_input *v, const u8 *bytes)
{
	static const u8 lights[] = {
		[LED_NUM] = INPUT_LED_NUM,
		[LED_CAPS] = INPUT_LED_CAPS,
		[LED_SCROLL] = INPUT_LED_SCROLL,
	};
	u16 code = load_le16(bytes + 2);

	if (load_le16(bytes) != EV_LED || code >= ARRAY_LEN(lights))
		return;
	v->leds = load_le32(bytes + 4) ? v->leds | lights[code] : v->leds & (u8)~lights[code];
}

static void take_status(struct virtio_input *v)
{
	unsigned most = SERVED_BATCH;
	struct virtq_chain c;

	while (most-- && take_buffer(v, Q_STATUS, &c)) {
		u8 bytes[VINPUT_EVENT_BYTES];

		iov_copy_from(c.out.iov, c.out.n, 0, bytes, sizeof(bytes));
		take_light(v, bytes);
		virtq_push(&v->vp.queues[Q_STATUS].vq, c.head, 0);
	}
}

static void serve(struct virtio_pci *vp, unsigned queue)
{
	struct virtio_input *v = vinput_of(vp);

	if (queue == Q_EVENTS)
		send_events(v);
	else
		take_status(v);
	/* With nothing to say, buffers may lie there: the next event takes them. */
	if (served_idle(&v->served, queue) && (queue == Q_STATUS || v->n_events))
		served_again(&v->served, queue);
}

/* --- events ------------------------------------------------------------------------ */

struct group {
	struct vinput_event events[16];
	u32 n;
};

static void add(struct group *g, u16 type, u16 code, u32 value)
{
	assert(g->n < ARRAY_LEN(g->events));
	g->events[g->n++] = (struct vinput_event){type, code, value};
}

static int put_group(struct virtio_input *v, struct group *g)
{
	lock_assert(&v->vp.pd.dev.lock);
	if (!g->n)
		return 0;
	add(g, EV_SYN, 0, 0);
	if (!v->vp.live || v->n_events + g->n > VINPUT_QUEUE)
		return -EBUSY;
	memcpy(v->events + v->n_events, g->events, g->n * sizeof(g->events[0]));
	v->n_events += g->n;
	send_events(v);
	return 0;
}

static int vinput_key(struct device *dev, u32 keycode, bool pressed)
{
	struct group g = {.n = 0};
	u16 code = vinput_key_code(keycode);

	if (!code)
		return -EINVAL;
	LOCK_SCOPE(&dev->lock);
	add(&g, EV_KEY, code, pressed);
	return put_group(of_device(dev), &g);
}

static void add_buttons(struct group *g, u32 were, u32 are)
{
	static const struct {
		u32 button;
		u16 code;
	} codes[] = {{INPUT_LEFT, BTN_LEFT},
		     {INPUT_RIGHT, BTN_RIGHT},
		     {INPUT_MIDDLE, BTN_MIDDLE},
		     {INPUT_SIDE, BTN_SIDE},
		     {INPUT_EXTRA, BTN_EXTRA}};

	for (unsigned i = 0; i < ARRAY_LEN(codes); i++)
		if ((were ^ are) & codes[i].button)
			add(g, EV_KEY, codes[i].code, (are & codes[i].button) != 0);
}

static int vinput_move(struct device *dev, const struct input_move *m)
{
	struct virtio_input *v = of_device(dev);
	u16 axes = m->absolute ? EV_ABS : EV_REL;
	struct group g = {.n = 0};
	int ret;

	LOCK_SCOPE(&dev->lock);
	if (m->x || m->absolute)
		add(&g, axes, AXIS_X, (u32)m->x);
	if (m->y || m->absolute)
		add(&g, axes, AXIS_Y, (u32)m->y);
	add_buttons(&g, v->buttons, m->buttons);
	if (m->wheel) /* away from the user is positive there */
		add(&g, EV_REL, REL_WHEEL, (u32)-m->wheel);
	ret = put_group(v, &g);
	if (ret == 0)
		v->buttons = m->buttons & 0x1f;
	return ret;
}

static bool vinput_is_on(struct device *dev)
{
	LOCK_SCOPE(&dev->lock);
	return of_device(dev)->vp.live;
}

static u32 vinput_leds(struct device *dev)
{
	LOCK_SCOPE(&dev->lock);
	return of_device(dev)->leds;
}

/* --- the transport's calls ------------------------------------------------------------ */

static void config_get(struct virtio_pci *vp, u8 *config)
{
	vinput_config(vinput_of(vp), config);
}

static void config_set(struct virtio_pci *vp, u32 off, u8 value)
{
	if (off == 0)
		vinput_of(vp)->select = value;
	if (off == 1)
		vinput_of(vp)->subsel = value;
}

static void start(struct virtio_pci *vp)
{
	served_start(&vinput_of(vp)->served);
}

static void stop(struct virtio_pci *vp)
{
}

static const struct virtio_ops ops = {
	.config_get = config_get, .config_set = config_set, .start = start, .stop = stop};

/* --- life ---------------------------------------------------------------------------- */

static int vinput_init(struct device *dev, struct error *err)
{
	struct virtio_input *v = of_device(dev);
	const struct virtio_setup setup = {
		.ops = &ops,
		.type = VIRTIO_TYPE_INPUT,
		.class_code = vinput_kind_of(dev)->class_code,
		.config_bytes = VINPUT_CONFIG_BYTES,
		.n_queues = 2,
		.queue_size = QUEUE_SIZE,
	};
	int ret = virtio_pci_init(&v->vp, &setup, err);

	if (ret == 0)
		served_init(&v->served, &v->vp, serve);
	return ret;
}

static void vinput_reset(struct device *dev)
{
	struct virtio_input *v = of_device(dev);

	virtio_pci_reset(&v->vp);
	v->select = v->subsel = v->leds = 0;
	v->buttons = v->n_events = 0;
	memset(v->events, 0, sizeof(v->events));
}

static void vinput_fini(struct device *dev)
{
	struct virtio_input *v = of_device(dev);

	served_fini(&v->served);
	virtio_pci_fini(&v->vp);
}

static const struct state_field event_state[] = {
	STATE(struct vinput_event, type),
	STATE(struct vinput_event, code),
	STATE(struct vinput_event, value),
	STATE_END,
};

static const struct state_field vinput_state[] = {
	STATE_STRUCT(struct virtio_input, vp, virtio_pci_state),
	STATE(struct virtio_input, select),
	STATE(struct virtio_input, subsel),
	STATE(struct virtio_input, leds),
	STATE(struct virtio_input, buttons),
	STATE(struct virtio_input, n_events),
	STATE_STRUCT_ARRAY(struct virtio_input, events, event_state),
	STATE_END,
};

static int vinput_check(const void *loaded, struct error *err)
{
	const struct virtio_input *v = loaded;

	if (v->n_events > VINPUT_QUEUE)
		return err_set(err, -EINVAL, "virtio-input: %u events wait, at most %u can",
			       v->n_events, VINPUT_QUEUE);
	return virtio_pci_state_check(&v->vp, err);
}

static const struct prop vinput_props[] = {
	VIRTIO_PCI_PROPS(struct virtio_input, vp),
	PROP(struct virtio_input, prop_serial, "serial", PROP_KIND_STR, NULL, "shown to the guest"),
	PROP_END,
};

#define VINPUT_CLASS(class_name, text)                                                             \
	{                                                                                          \
		.name = (class_name), .help = (text), .size = sizeof(struct virtio_input),         \
		.bus = DEVICE_ON_PCI, .user_creatable = true, .props = vinput_props,               \
		.init = vinput_init, .reset = vinput_reset, .fini = vinput_fini,                   \
		.state = vinput_state, .state_check = vinput_check,                                \
		.post_load = virtio_pci_post_load, .pause = virtio_pci_pause,                      \
		.resume = virtio_pci_resume,                                                       \
	}

const struct device_class virtio_keyboard_class =
	VINPUT_CLASS("virtio-keyboard-pci", "virtio keyboard");
const struct device_class virtio_mouse_class = VINPUT_CLASS("virtio-mouse-pci", "virtio mouse");
const struct device_class virtio_tablet_class =
	VINPUT_CLASS("virtio-tablet-pci", "virtio tablet: a pointer that knows its place");

static const struct {
	const struct device_class *cls;
	struct vinput_kind kind;
	struct input_ops input;
} kinds[] = {
	{&virtio_keyboard_class,
	 {.name = "cowvm Virtio Keyboard", .product = 1, .class_code = 0x090000, .keys = true},
	 {.name = "Virtio Keyboard",
	  .key = vinput_key,
	  .is_on = vinput_is_on,
	  .leds = vinput_leds}},
	{&virtio_mouse_class,
	 {.name = "cowvm Virtio Mouse", .product = 2, .class_code = 0x090200},
	 {.name = "Virtio Mouse", .move = vinput_move, .is_on = vinput_is_on}},
	{&virtio_tablet_class,
	 {.name = "cowvm Virtio Tablet", .product = 3, .class_code = 0x098000, .absolute = true},
	 {.name = "Virtio Tablet", .absolute = true, .move = vinput_move, .is_on = vinput_is_on}},
};

const struct vinput_kind *vinput_kind_of(const struct device *dev)
{
	for (unsigned i = 0; i < ARRAY_LEN(kinds); i++)
		if (kinds[i].cls == dev->cls)
			return &kinds[i].kind;
	assert(!"a virtio-input class");
	return NULL;
}

const struct input_ops *virtio_input_ops(const struct device *dev)
{
	for (unsigned i = 0; i < ARRAY_LEN(kinds); i++)
		if (kinds[i].cls == dev->cls)
			return &kinds[i].input;
	return NULL;
}
