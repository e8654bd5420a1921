/* Answers calls to the submission of a sealed function task in C, as subject.py does for Python;
   wire.py says what a frame is, on fd 4. call.c, made from the task's signature, reads the arguments
   of one call, makes it and writes the result. Nothing that a verdict depends on is in this process.
   The submission is compiled on its own and linked: names
   here start with `wire_`, so that none is like the function's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FD = 4, MAX_FRAME = 4 << 20 };

/* The bytes of a frame: of the one that is read, up to `size`, or of the one that is written. */
struct frame {
  unsigned char *data;
  size_t at, size;
};

static jmp_buf wire_stuck_at;
static char wire_stuck_why[200];

/* Leaves the call: a value can't cross. */
static _Noreturn void wire_stuck(const char *format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(wire_stuck_why, sizeof wire_stuck_why, format, args);
  va_end(args);
  longjmp(wire_stuck_at, 1);
}

/* What a call takes: its frame and its arguments. */
struct wire_block {
  struct wire_block *next;
  max_align_t memory[];
};

static struct wire_block *wire_blocks;

static void *wire_allocate(size_t count, size_t each) {
  /* One more, so that an empty list is no null pointer and a text can end. */
  struct wire_block *block = calloc(1, sizeof *block + (count + 1) * each);
  if (!block) abort();
  block->next = wire_blocks;
  wire_blocks = block;
  return block->memory;
}

/* Ends a call whose answer is encoded: the result may be one of the arguments. What the function
   itself has allocated stays, since it may be needed again. */
static void wire_free_call(void) {
  while (wire_blocks) {
    struct wire_block *next = wire_blocks->next;
    free(wire_blocks);
    wire_blocks = next;
  }
}

static const unsigned char *wire_take(struct frame *in, size_t count) {
  if (count > in->size - in->at) wire_stuck("the call is cut short");
  in->at += count;
  return in->data + in->at - count;
}

static size_t wire_take_size(struct frame *in) {
  const unsigned char *b = wire_take(in, 4);
  return (size_t)b[0] << 24 | (size_t)b[1] << 16 | (size_t)b[2] << 8 | b[3];
}

static size_t wire_expect(struct frame *in, char tag, const char *name, const char *type) {
  if (*wire_take(in, 1) != tag) wire_stuck("argument `%s` is no %s", name, type);
  return wire_take_size(in);
}

/* An integer of up to 8 bytes, or 9 where the first is the sign of the others. */
static void wire_take_int(struct frame *in, const char *name, const char *type, int *negative, uint64_t *low) {
  size_t size = wire_expect(in, 'i', name, type);
  const unsigned char *b = wire_take(in, size);
  *negative = size > 0 && b[0] >= 0x80;
  *low = *negative ? ~(uint64_t)0 : 0;
  unsigned char sign = *negative ? 0xff : 0;
  while (size > 8 && *b == sign) b++, size--;
  if (size > 8) wire_stuck("argument `%s` does not fit in %s", name, type);
  while (size--) *low = *low << 8 | *b++;
}

static int64_t wire_read_i64(struct frame *in, const char *name) {
  int negative;
  uint64_t low;
  wire_take_int(in, name, "i64", &negative, &low);
  if (negative != ((int64_t)low < 0)) wire_stuck("argument `%s` does not fit in i64", name);
  return (int64_t)low;
}

static uint64_t wire_read_u64(struct frame *in, const char *name) {
  int negative;
  uint64_t low;
  wire_take_int(in, name, "u64", &negative, &low);
  if (negative) wire_stuck("argument `%s` does not fit in u64", name);
  return low;
}

static int32_t wire_read_i32(struct frame *in, const char *name) {
  int64_t number = wire_read_i64(in, name);
  if (number < INT32_MIN || number > INT32_MAX) wire_stuck("argument `%s` does not fit in i32", name);
  return (int32_t)number;
}

static double wire_read_f64(struct frame *in, const char *name) {
  if (in->at < in->size && in->data[in->at] == 'i') return (double)wire_read_i64(in, name);
  if (*wire_take(in, 1) != 'f') wire_stuck("argument `%s` is no f64", name);
  const unsigned char *b = wire_take(in, 8);
  uint64_t bits = 0;
  for (int i = 0; i < 8; i++) bits = bits << 8 | b[i];
  double number;
  memcpy(&number, &bits, 8);
  return number;
}

static bool wire_read_bool(struct frame *in, const char *name) {
  unsigned char tag = *wire_take(in, 1);
  if (tag != 'T' && tag != 'F') wire_stuck("argument `%s` is no bool", name);
  return tag == 'T';
}

static char *wire_read_str(struct frame *in, const char *name) {
  size_t size = wire_expect(in, 's', name, "str");
  const unsigned char *raw = wire_take(in, size);
  if (memchr(raw, 0, size)) wire_stuck("argument `%s` has a NUL, where a text of C ends", name);
  return memcpy(wire_allocate(size, 1), raw, size);
}

static uint8_t *wire_read_bytes(struct frame *in, const char *name, size_t *len) {
  *len = wire_expect(in, 'b', name, "bytes");
  return memcpy(wire_allocate(*len, 1), wire_take(in, *len), *len);
}

#define LIST(kind, type)                                                             \
  static type *wire_read_list_##kind(struct frame *in, const char *name, size_t *len) {   \
    *len = wire_expect(in, 'l', name, "list");                                            \
    if (*len > in->size) wire_stuck("the call is cut short");                             \
    type *items = wire_allocate(*len, sizeof(type));                                      \
    for (size_t i = 0; i < *len; i++) items[i] = wire_read_##kind(in, name);              \
    return items;                                                                    \
  }

/* `count` arguments follow, and no named ones. */
static void wire_read_call(struct frame *in, size_t count) {
  if (*wire_take(in, 1) != 't' || wire_take_size(in) != 2 || *wire_take(in, 1) != 't') wire_stuck("this is no call");
  size_t given = wire_take_size(in);
  if (given != count) wire_stuck("the function takes %zu arguments, not %zu", count, given);
}

static void wire_read_end(struct frame *in) {
  if (*wire_take(in, 1) != 'd' || wire_take_size(in) != 0) wire_stuck("C has no named arguments");
}

static void wire_put(struct frame *out, const void *data, size_t count) {
  if (count > MAX_FRAME - out->at) wire_stuck("a value of more than %d bytes can't cross", MAX_FRAME);
  if (count) memcpy(out->data + out->at, data, count);
  out->at += count;
}

static void wire_put_sized(struct frame *out, char tag, size_t size) {
  if (size > MAX_FRAME) wire_stuck("a value of more than %d bytes can't cross", MAX_FRAME);
  unsigned char head[] = {tag, size >> 24, size >> 16, size >> 8, size};
  wire_put(out, head, 5);
}

static void wire_put_bits(struct frame *out, uint64_t bits) {
  unsigned char b[8];
  for (int i = 0; i < 8; i++) b[i] = bits >> (56 - 8 * i);
  wire_put(out, b, 8);
}

static void wire_write_i64(struct frame *out, int64_t number) {
  wire_put_sized(out, 'i', 8);
  wire_put_bits(out, (uint64_t)number);
}

static void wire_write_i32(struct frame *out, int32_t number) { wire_write_i64(out, number); }

static void wire_write_u64(struct frame *out, uint64_t number) {
  wire_put_sized(out, 'i', 9);
  wire_put(out, "", 1);
  wire_put_bits(out, number);
}

static void wire_write_f64(struct frame *out, double number) {
  uint64_t bits;
  memcpy(&bits, &number, 8);
  wire_put(out, "f", 1);
  wire_put_bits(out, bits);
}

static void wire_write_bool(struct frame *out, bool truth) { wire_put(out, truth ? "T" : "F", 1); }

static void wire_write_none(struct frame *out) { wire_put(out, "N", 1); }

static void wire_write_str(struct frame *out, const char *text) {
  if (!text) return wire_write_none(out);
  size_t size = strlen(text);
  wire_put_sized(out, 's', size);
  wire_put(out, text, size);
}

static void wire_write_bytes(struct frame *out, const uint8_t *raw, size_t len) {
  if (!raw) return wire_write_none(out);
  wire_put_sized(out, 'b', len);
  wire_put(out, raw, len);
}

#define RESULT_LIST(kind, type)                                                      \
  static void wire_write_list_##kind(struct frame *out, type *items, size_t len) {        \
    if (!items) return wire_write_none(out);                                              \
    wire_put_sized(out, 'l', len);                                                        \
    for (size_t i = 0; i < len; i++) wire_write_##kind(out, items[i]);                    \
  }

#include "call.c"

static int wire_read_whole(void *data, size_t count) {
  for (size_t at = 0; at < count;) {
    ssize_t got = read(FD, (char *)data + at, count - at);
    if (got <= 0) return 0;
    at += (size_t)got;
  }
  return 1;
}

/* Sends what is in `out` after its first 4 bytes, which become the length. */
static void wire_send_frame(struct frame *out) {
  size_t size = out->at - 4;
  for (int i = 0; i < 4; i++) out->data[i] = size >> (24 - 8 * i);
  for (size_t at = 0; at < out->at;) {
    ssize_t sent = write(FD, out->data + at, out->at - at);
    if (sent <= 0) _exit(1);
    at += (size_t)sent;
  }
}

/* Starts a message: a tuple of `count` that opens with its kind. */
static void wire_start(struct frame *out, size_t count, const char *kind) {
  out->at = 4;
  wire_put_sized(out, 't', count);
  wire_write_str(out, kind);
}

int main(void) {
  static unsigned char bytes[MAX_FRAME];
  struct frame out = {bytes, 0, MAX_FRAME};
  setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
  wire_start(&out, 1, "ready");
  wire_send_frame(&out);
  unsigned char head[4];
  while (wire_read_whole(head, 4)) {
    struct frame in = {NULL, 0, (size_t)head[0] << 24 | head[1] << 16 | head[2] << 8 | head[3]};
    in.data = wire_allocate(in.size, 1);
    if (!wire_read_whole(in.data, in.size)) break;
    if (setjmp(wire_stuck_at) == 0) {
      wire_start(&out, 3, "ok");
      wire_call(&in, &out);
      wire_write_none(&out);
    } else {
      wire_start(&out, 2, "stuck");
      wire_write_str(&out, wire_stuck_why);
    }
    wire_send_frame(&out);
    wire_free_call();
  }
  fflush(stdout);
  _exit(0);
}
