/* fastText's features of lines of text: the mean of the input rows of words and n-grams.
 *
 * Rows are added one after another in float32, in fastText's own order, so that each line has the
 * bits that fastText computes. */
#include <stdlib.h>
#include <string.h>

#include "hsoftmax.h"

enum { LONGEST_NGRAM = 64 };

static const uint8_t LINE_END[] = "</s>";
static const uint8_t LABEL[] = "__label__";
static uint32_t crc_table[256];

__attribute__((constructor)) static void fill_crc_table(void) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t value = i;
        for (int bit = 0; bit < 8; bit++) value = value & 1 ? value >> 1 ^ 0xEDB88320u : value >> 1;
        crc_table[i] = value;
    }
}

static uint32_t crc32_of(const uint8_t *bytes, int64_t size) {
    uint32_t value = ~0u;
    for (int64_t i = 0; i < size; i++) value = value >> 8 ^ crc_table[(value ^ bytes[i]) & 255];
    return ~value;
}

/* FNV-1a with fastText's signed characters. */
static uint32_t mix(uint32_t state, uint8_t byte) {
    return (state ^ (uint32_t)(int32_t)(int8_t)byte) * 16777619u;
}

static uint32_t hash_of(const uint8_t *bytes, int64_t size) {
    uint32_t state = 2166136261u;
    for (int64_t i = 0; i < size; i++) state = mix(state, bytes[i]);
    return state;
}

static int is_space(uint8_t byte) {
    return byte == ' ' || (byte >= '\t' && byte <= '\r') || byte == 0;
}

/* The number of a word, or -1. */
static int64_t find_word(const hsoftmax_text *model, const uint8_t *word, int64_t size) {
    const uint32_t mask = (uint32_t)(model->num_slots - 1);
    uint32_t slot = crc32_of(word, size) & mask;
    for (int64_t tried = 0; tried < model->num_slots; tried++, slot = (slot + 1) & mask) {
        const int64_t number = model->slots[slot];
        if (number < 0 || number >= model->entries) return -1;
        const int64_t start = model->offsets[number];
        if (start >= 0 && start <= model->text_size - size &&
            model->offsets[number + 1] - start == size &&
            !memcmp(model->text + start, word, (size_t)size))
            return number;
    }
    return -1;
}

/* The row of a bucket, or -1 for one that a pruned model does not have. */
static int64_t bucket_row(const hsoftmax_text *model, int64_t bucket) {
    if (model->num_pruned < 0) return model->words + bucket;
    const int64_t range = bucket >> model->pruned_shift;
    const int64_t start = model->pruned_start[range], end = model->pruned_start[range + 1];
    if (start < 0 || end > model->num_pruned) return -1;
    for (int64_t i = start; i < end; i++)
        if (model->pruned_bucket[i] == bucket) return model->words + model->pruned_row[i];
    return -1;
}

/* The sum of the rows of one line so far. */
typedef struct {
    const hsoftmax_text *model;
    float *sum;
    int64_t count;
    int failed;
} line_sum;

static void add_row(line_sum *line, int64_t row) {
    const hsoftmax_text *model = line->model;
    if (row < 0 || row >= model->rows) {
        line->failed = 1;
        return;
    }
    line->count++;
    float *sum = line->sum;
    if (model->weight) {
        const float *values = model->weight + row * model->columns;
        for (int64_t i = 0; i < model->columns; i++) sum[i] += values[i];
        return;
    }
    const uint8_t *codes = model->codes + row * model->parts;
    const float *centroids = model->centroids;
    for (int64_t part = 0; part < model->parts; part++) {
        const float *values = centroids + (part * 256 + codes[part]) * model->part_size;
        const int64_t start = part * model->part_size, left = model->columns - start;
        const int64_t size = left < model->part_size ? left : model->part_size;
        if (model->norms) {
            const float norm = model->norms[model->norm_codes[row]];
            for (int64_t i = 0; i < size; i++) sum[start + i] += norm * values[i];
        } else {
            for (int64_t i = 0; i < size; i++) sum[start + i] += values[i];
        }
    }
}

static void add_bucket(line_sum *line, int64_t bucket) {
    const int64_t row = bucket_row(line->model, bucket);
    if (row >= 0) add_row(line, row);
}

/* Adds the n-grams of characters of a word that stands between '<' and '>'. */
static void add_char_ngrams(line_sum *line, const uint8_t *word, int64_t size) {
    const hsoftmax_text *model = line->model;
    for (int64_t start = 0; start < size; start++) {
        if ((word[start] & 0xC0) == 0x80) continue;
        uint32_t state = 2166136261u;
        int64_t end = start;
        for (int64_t n = 1; end < size && n <= model->max_chars; n++) {
            state = mix(state, word[end++]);
            while (end < size && (word[end] & 0xC0) == 0x80) state = mix(state, word[end++]);
            if (n >= model->min_chars && !(n == 1 && (start == 0 || end == size)))
                add_bucket(line, state % (uint32_t)model->buckets);
        }
    }
}

static void add_word_ngrams(line_sum *line, const uint32_t *hashes, int64_t words) {
    const hsoftmax_text *model = line->model;
    for (int64_t first = 0; first < words; first++) {
        uint64_t joined = (uint64_t)(int64_t)(int32_t)hashes[first];
        for (int64_t i = first + 1; i < words && i < first + model->max_words; i++) {
            joined = joined * 116049371u + (uint64_t)(int64_t)(int32_t)hashes[i];
            add_bucket(line, (int64_t)(joined % (uint64_t)model->buckets));
        }
    }
}

/* Buffers for the longest line: a word with '<' and '>', and the hashes of its words. */
typedef struct {
    uint8_t *word;
    uint32_t *hashes;
} buffers;

/* Adds one word. Returns 1 if it is a word, known or not, and 0 if it is a label. */
static int add_word(line_sum *line, const uint8_t *word, int64_t size, uint8_t *padded) {
    const hsoftmax_text *model = line->model;
    const int64_t number = find_word(model, word, size);
    const int64_t label_size = (int64_t)sizeof(LABEL) - 1;
    if (number >= model->words) return 0;
    if (number < 0 && size >= label_size && !memcmp(word, LABEL, (size_t)label_size)) return 0;
    if (number >= 0) add_row(line, number);
    const int is_end = size == 4 && !memcmp(word, LINE_END, 4);
    if (model->max_chars > 0 && !is_end) {
        padded[0] = '<';
        memcpy(padded + 1, word, (size_t)size);
        padded[size + 1] = '>';
        add_char_ngrams(line, padded, size + 2);
    }
    return 1;
}

static void add_line(line_sum *line, const uint8_t *text, int64_t size, const buffers *work) {
    int64_t words = 0;
    int ended = 0;
    for (int64_t at = 0; at <= size && !ended;) {
        while (at < size && is_space(text[at])) at++;
        const uint8_t *word = text + at;
        int64_t length = 0;
        while (at < size && !is_space(text[at])) at++, length++;
        if (!length) word = LINE_END, length = 4; /* every line has its end */
        ended = length == 4 && !memcmp(word, LINE_END, 4);
        if (add_word(line, word, length, work->word) && line->model->max_words > 1)
            work->hashes[words++] = hash_of(word, length);
    }
    if (words) add_word_ngrams(line, work->hashes, words);
}

/* True if each bucket has a range. */
static int has_pruned_ranges(const hsoftmax_text *model) {
    if (!model->pruned_start || model->pruned_shift < 0 || model->pruned_shift > 31) return 0;
    if (model->num_pruned && (!model->pruned_bucket || !model->pruned_row)) return 0;
    return !model->buckets || (model->buckets - 1) >> model->pruned_shift < model->pruned_ranges;
}

static int fits(const hsoftmax_text *model) {
    if (!model->text || !model->offsets || !model->slots || model->entries < 0) return 0;
    if (model->num_slots < 1 || (model->num_slots & (model->num_slots - 1))) return 0;
    if (model->words < 0 || model->words > model->entries || model->columns < 1) return 0;
    if (model->max_chars > LONGEST_NGRAM || model->max_words > LONGEST_NGRAM) return 0;
    if ((model->max_chars > 0 || model->max_words > 1) && model->buckets < 1) return 0;
    if (model->buckets > INT32_MAX) return 0;
    if (model->num_pruned >= 0 && !has_pruned_ranges(model)) return 0;
    if (model->weight) return 1;
    return model->codes && model->centroids && model->parts > 0 && model->part_size > 0 &&
           (model->parts - 1) * model->part_size < model->columns &&
           model->columns <= model->parts * model->part_size &&
           !model->norms == !model->norm_codes;
}

int32_t hsoftmax_text_hidden(const hsoftmax_text *model, const uint8_t *text, const int64_t *ends,
                             int64_t lines, float *hidden, int64_t *counts) {
    if (!model || !text || !ends || !hidden || !counts || lines < 0) return HSOFTMAX_BAD_ARGUMENT;
    if (!fits(model)) return HSOFTMAX_BAD_MODEL;
    int64_t longest = 0;
    for (int64_t i = 0, start = 0; i < lines; start = ends[i++]) {
        if (ends[i] < start) return HSOFTMAX_BAD_ARGUMENT;
        if (ends[i] - start > longest) longest = ends[i] - start;
    }
    buffers work = {malloc((size_t)longest + 8), malloc(((size_t)longest + 4) * sizeof(uint32_t))};
    int32_t status = work.word && work.hashes ? HSOFTMAX_OK : HSOFTMAX_NO_MEMORY;
    for (int64_t i = 0, start = 0; i < lines && !status; start = ends[i++]) {
        line_sum line = {model, hidden + i * model->columns, 0, 0};
        memset(line.sum, 0, (size_t)model->columns * sizeof(float));
        add_line(&line, text + start, ends[i] - start, &work);
        counts[i] = line.count;
        const float scale = line.count ? (float)(1.0 / (double)line.count) : 0.0f;
        for (int64_t c = 0; c < model->columns; c++) line.sum[c] *= scale;
        if (line.failed) status = HSOFTMAX_BAD_MODEL;
    }
    free(work.word);
    free(work.hashes);
    return status;
}
