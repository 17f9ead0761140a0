/* The device's end of MLPerf Tiny's serial protocol. A command ends with '%', an answer with "m-ready". */
#include "edgeprof_mcu.h"

#define COMMAND_BYTES 80 /* a longer command is refused */
#define WARMUPS 10       /* where the host does not say how many */

static const edgeprof_mcu_t *fw;
static char command[COMMAND_BYTES + 1];
static uint32_t length;          /* bytes of the command so far, COMMAND_BYTES + 1 where there were too many */
static uint32_t expected, taken; /* bytes of the input that is being loaded */

/* --- lines ------------------------------------------------------------------------------------------------------- */

static void put(const char *text) {
    while (*text) fw->send((uint8_t)*text++);
}

static void put_number(uint32_t number) {
    char digits[11];
    char *at = digits + sizeof digits - 1;
    *at = 0;
    do {
        *--at = (char)('0' + number % 10u);
        number /= 10u;
    } while (number);
    put(at);
}

static void end_line(void) { put("\r\n"); }

static void say(const char *line) {
    put(line);
    end_line();
}

static void say_number(const char *beginning, uint32_t number, const char *end) {
    put(beginning);
    put_number(number);
    say(end);
}

static void say_text(const char *beginning, const char *text) {
    put(beginning);
    put(text);
    say("]");
}

/* Six decimals without printf, whose floats many firmwares leave out; MLCommons' own firmware has three. */
static void put_score(float score) {
    if (score != score) {
        put("nan");
        return;
    }
    if (score < 0.0f) {
        put("-");
        score = -score;
    }
    if (score > 4294.0f) { /* beyond what 32 bits of millionths hold: whole numbers are enough */
        put_number(score < 4294967040.0f ? (uint32_t)score : 4294967295u);
        return;
    }
    uint32_t millionths = (uint32_t)(score * 1e6f + 0.5f), unit = 100000u;
    put_number(millionths / 1000000u);
    put(".");
    for (millionths %= 1000000u; unit; unit /= 10u) fw->send((uint8_t)('0' + millionths / unit % 10u));
}

static void say_results(void) {
    put("m-results-[");
    for (uint32_t i = 0; i < fw->classes; ++i) {
        if (i) put(",");
        put_score(fw->results[i]);
    }
    say("]");
}

static void say_lap(void) { say_number("m-lap-us-", fw->microseconds(), ""); }

/* --- words of a command ------------------------------------------------------------------------------------------ */

/* The next word, ended with a zero byte, or NULL; the place behind it goes to *rest. */
static char *next_word(char **rest) {
    char *word = *rest;
    while (*word == ' ') ++word;
    if (!*word) return NULL;
    char *end = word;
    while (*end && *end != ' ') ++end;
    *rest = *end ? end + 1 : end;
    *end = 0;
    return word;
}

static int is_word(const char *word, const char *other) {
    for (; *word && *word == *other; ++other) ++word;
    return *word == *other;
}

/* A whole number below 2^31; -1 where the word is none. */
static int32_t number_of(const char *word) {
    uint32_t number = 0;
    if (!word || !*word) return -1;
    for (; *word; ++word) {
        if (*word < '0' || *word > '9' || number > (0x7fffffffu - 9u) / 10u) return -1;
        number = 10u * number + (uint32_t)(*word - '0');
    }
    return (int32_t)number;
}

static int nibble(char digit) {
    if (digit >= '0' && digit <= '9') return digit - '0';
    if (digit >= 'a' && digit <= 'f') return digit - 'a' + 10;
    if (digit >= 'A' && digit <= 'F') return digit - 'A' + 10;
    return -1;
}

/* --- commands ---------------------------------------------------------------------------------------------------- */

static void do_load(char *word) {
    int32_t size = number_of(word);
    if (size <= 0) {
        say("e-[Command 'db load' requires the # of bytes]");
    } else if ((uint32_t)size != fw->input_bytes) {
        expected = taken = 0; /* what comes now is not to lie over what is behind the buffer */
        say_number("e-[The model takes ", fw->input_bytes, " bytes]");
    } else {
        expected = (uint32_t)size;
        taken = 0;
        say_number("m-[Expecting ", expected, " bytes]");
    }
}

static void do_bytes(const char *digits) {
    for (; *digits; digits += 2) {
        int high = nibble(digits[0]), low = digits[1] ? nibble(digits[1]) : -1;
        if (high < 0 || low < 0) {
            say("e-[Invalid hex digits]");
            return;
        }
        if (taken >= expected) {
            say("e-[More bytes than were announced]");
            return;
        }
        fw->buffer[taken++] = (uint8_t)(high << 4 | low);
        if (taken == expected) say("m-load-done");
    }
}

static void do_db(char *rest) {
    char *word = next_word(&rest);
    if (!word)
        say("e-[Command 'db' requires a subcommand]");
    else if (is_word(word, "load"))
        do_load(next_word(&rest));
    else
        do_bytes(word);
}

static int run(uint32_t inferences) {
    for (; inferences; --inferences)
        if (fw->infer()) return 0;
    return 1;
}

static void do_infer(char *rest) {
    char *word = next_word(&rest), *more = next_word(&rest);
    int32_t count = word ? number_of(word) : 1, warmups = more ? number_of(more) : WARMUPS;
    if (count <= 0 || warmups < 0) {
        say("e-[Inference iterations must be >0, and warmup >=0]");
        return;
    }
    if (!expected || taken != expected) {
        say("e-[No whole input was loaded]");
        return;
    }
    say_number("m-warmup-start-", (uint32_t)warmups, "");
    int worked = run((uint32_t)warmups);
    say("m-warmup-done");
    say_number("m-infer-start-", (uint32_t)count, "");
    say_lap();
    if (fw->pin) fw->pin(1);
    worked = worked && run((uint32_t)count);
    if (fw->pin) fw->pin(0);
    say_lap();
    say("m-infer-done");
    if (worked)
        say_results();
    else
        say("e-[The inference failed]");
}

static void say_profile(void) {
    say("m-profile-[edgeprof harness 1]");
    say_text("m-model-[", fw->model);
    say_text("m-input-[", fw->input);
    if (fw->arena_bytes) say_number("m-mem-arena-", fw->arena_bytes, "");
    if (fw->flash_bytes) say_number("m-mem-flash-", fw->flash_bytes, "");
    if (fw->ram_bytes) say_number("m-mem-ram-", fw->ram_bytes, "");
}

static void carry_out(char *rest) {
    char *word = next_word(&rest);
    if (!word)
        say("e-[Unknown command: (null)]");
    else if (is_word(word, "name"))
        say_text("m-name-dut-[", fw->name);
    else if (is_word(word, "profile"))
        say_profile();
    else if (is_word(word, "timestamp"))
        say_lap();
    else if (is_word(word, "db"))
        do_db(rest);
    else if (is_word(word, "infer"))
        do_infer(rest);
    else if (is_word(word, "results"))
        say_results();
    else if (is_word(word, "help"))
        say("m-help-[name profile timestamp db infer results help]");
    else
        say_text("e-[Unknown command: ", word);
    say("m-ready");
}

void edgeprof_mcu_begin(const edgeprof_mcu_t *firmware) {
    fw = firmware;
    length = expected = taken = 0;
    if (fw->pin) fw->pin(0);
    say("m-timestamp-mode-performance");
    say_lap();
    say("m-init-done");
    say("m-ready");
}

void edgeprof_mcu_receive(uint8_t byte) {
    if (byte != '%') {
        if (length < COMMAND_BYTES)
            command[length++] = (char)byte;
        else
            length = COMMAND_BYTES + 1;
        return;
    }
    if (length > COMMAND_BYTES) {
        say("e-[The command is too long]");
        say("m-ready");
    } else {
        command[length] = 0;
        carry_out(command);
    }
    length = 0;
}
