/* Tells in TAP whether `hex_decode` is right. */
#include <stdio.h>
#include <string.h>

#include "hex.h"

static int number, failed;

static void holds(const char *name, const char *text, int count, const char *bytes)
{
    unsigned char out[8] = {0};
    int got = hex_decode(text, out, sizeof out);
    int right = got == count && (count < 0 || memcmp(out, bytes, (size_t)count) == 0);

    number++;
    failed |= !right;
    printf("%sok %d - %s\n", right ? "" : "not ", number, name);
}

int main(void)
{
    puts("1..6");
    holds("two bytes", "00ff", 2, "\x00\xff");
    holds("no text", "", 0, "");
    holds("other letters are refused", "0g", -1, "");
    holds("capital digits", "DEadBe", 3, "\xde\xad\xbe");
    holds("half a byte is refused", "abc", -1, "");
    holds("more bytes than there is room for", "000102030405060708", -1, "");
    return failed;
}
