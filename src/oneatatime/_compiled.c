/* What runs once a reply and once a key, compiled. `_resp.py` has the same in Python.

   Bytes -> replies of RESP2 and RESP3: a reply is built only when all of it is there: `scan` walks over what has come and counts the elements
   that are still missing; `build` makes the objects. So no length that a server claims makes room for
   anything before the bytes themselves have come, and what is built needs no second look at bounds.

   Arrays and sets are tuples. One that holds nothing the garbage collector could be interested in is hidden
   from it: thousands of little containers that wait for the loop cost no collection anything.

   Keys -> commands, words -> dict, keys by their shape: see `commands`, `fields`, `alike`. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <string.h>

#define LEAST_CAPACITY ((size_t)128 * 1024)
#define MOST_IDLE_CAPACITY ((size_t)1024 * 1024) /* what an empty buffer keeps at most */
#define MOST_LINE ((size_t)1024 * 1024)
#define MOST_DIGITS 20
#define MOST_DOUBLE 400 /* bytes of one written out in full */
#define MOST_DEPTH 16
#define MOST_LENGTH ((long long)1 << (sizeof(Py_ssize_t) > 4 ? 40 : 28))
#define MOST_BOUNDED 9999999 /* elements of an array in the reply to a question that has a bound */

typedef struct {
    PyObject_HEAD
    char *data;
    size_t capacity;
    size_t start; /* of the first reply that was not taken */
    size_t seen;  /* how far `scan` has looked */
    size_t end;
    Py_ssize_t missing; /* elements of the reply at `start` that `scan` has not seen; 0: it has not begun */
    unsigned long long consumed;
    PyObject *error;  /* makes of its text what stands for an error reply */
    PyObject *pushed; /* list of what was pushed */
    int busy;
} Parser;

static int
nonsense(const char *what)
{
    PyErr_SetString(PyExc_ValueError, what);
    return -1;
}

/* Scanning. 1: it is there; 0: not all of it has come; -1: nonsense, and an exception is set. */

/* A header like "$12\r\n": the length that it tells, -1 for null, and what follows it. */
static inline int
scan_header(const char *at, const char *end, Py_ssize_t *length, const char **after)
{
    const char *digit = at + 1;
    long long number = 0;

    if (digit < end && *digit == '-') {
        if (end - at < 5)
            return 0;
        if (memcmp(at, "$-1\r\n", 5) != 0 && memcmp(at, "*-1\r\n", 5) != 0)
            return nonsense("a negative length");
        *length = -1;
        *after = at + 5;
        return 1;
    }
    for (; digit < end && *digit >= '0' && *digit <= '9'; digit++) {
        number = number * 10 + (*digit - '0');
        if (number > MOST_LENGTH || digit - at > MOST_DIGITS)
            return nonsense("a length beyond all bounds");
    }
    if (digit == end)
        return 0;
    if (digit == at + 1 || *digit != '\r')
        return nonsense("a length that is no number");
    if (end - digit < 2)
        return 0;
    if (digit[1] != '\n')
        return nonsense("a length that is no number");
    *length = (Py_ssize_t)number;
    *after = digit + 2;
    return 1;
}

static inline int
scan_string(const char *at, const char *end, const char **after)
{
    Py_ssize_t length;
    int found = scan_header(at, end, &length, after);

    if (found != 1 || length < 0)
        return found;
    if (end - *after < length + 2)
        return 0;
    if ((*after)[length] != '\r' || (*after)[length + 1] != '\n')
        return nonsense("a string that does not end where its length says");
    *after += length + 2;
    return 1;
}

static inline int
scan_line(const char *at, const char *end, const char **after)
{
    size_t room = (size_t)(end - at);
    const char *newline = memchr(at, '\n', room < MOST_LINE ? room : MOST_LINE);

    if (newline == NULL)
        return room < MOST_LINE ? 0 : nonsense("a line without an end");
    if (newline - at < 2 && *at != '_' && *at != '+' && *at != '-')
        return nonsense("a line with nothing in it");
    if (newline[-1] != '\r' || memchr(at, '\r', (size_t)(newline - at)) != newline - 1)
        return nonsense("a line that does not end as lines do");
    *after = newline + 1;
    return 1;
}

static int
scan(Parser *self, int bounded)
{
    const char *at = self->data + self->seen, *end = self->data + self->end, *after = at;
    Py_ssize_t missing = self->missing ? self->missing : 1, length = 0;
    int found = 1;

    while (missing > 0) {
        if (at == end) {
            found = 0;
            break;
        }
        switch (*at) {
        case '$': case '=': case '!':
            found = scan_string(at, end, &after);
            break;
        case '*': case '~': case '>': case '%':
            found = scan_header(at, end, &length, &after);
            if (found == 1 && bounded && length > MOST_BOUNDED)
                found = nonsense("an array of so many elements cannot be what was asked for");
            if (found == 1 && length > 0)
                missing += *at == '%' ? 2 * length : length;
            if (missing > MOST_LENGTH)
                found = nonsense("a length beyond all bounds");
            break;
        case '+': case '-': case ':': case ',': case '#': case '(': case '_':
            found = scan_line(at, end, &after);
            break;
        default:
            found = nonsense("a byte that begins no reply");
        }
        if (found != 1)
            break;
        at = after;
        missing--;
    }
    self->seen = (size_t)(at - self->data);
    self->missing = missing;
    return found;
}

/* Building what `scan` has found to be all there. `tracked` tells whether the collector must know of it. */

static PyObject *build(Parser *self, const char **at, int depth, int *tracked);

static PyObject *
integer(const char *text, const char *end)
{
    int negative = *text == '-';
    const unsigned long long most = (unsigned long long)LLONG_MAX + (negative ? 1 : 0);
    unsigned long long number = 0;

    if (negative)
        text++;
    if (text == end || end - text > 19)
        goto bad;
    for (; text < end; text++) {
        if (*text < '0' || *text > '9')
            goto bad;
        number = number * 10 + (unsigned long long)(*text - '0'); /* 19 digits fit */
    }
    if (number > most)
        goto bad;
    return PyLong_FromLongLong(negative ? (long long)(0 - number) : (long long)number);
bad:
    nonsense("an integer that is none");
    return NULL;
}

/* Doubles are short as a rule: of up to 15 digits, one exact division gives the nearest double. */
static PyObject *
number(const char *text, const char *end)
{
    static const double tens[] = {1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8,
                                  1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15};
    const char *digit = text + (*text == '-');
    long long mantissa = 0;
    int digits = 0, behind = -1;
    char *stop, whole[MOST_DOUBLE + 1];
    double value;

    for (; digit < end && digits <= 15; digit++) {
        if (*digit == '.' && behind < 0)
            behind = 0;
        else if (*digit >= '0' && *digit <= '9') {
            mantissa = mantissa * 10 + (*digit - '0');
            digits++;
            behind += behind >= 0;
        }
        else
            break;
    }
    if (digit == end && digits > 0 && digits <= 15) {
        value = (double)mantissa / tens[behind > 0 ? behind : 0];
        return PyFloat_FromDouble(*text == '-' ? -value : value);
    }
    if (text == end || end - text > MOST_DOUBLE)
        goto bad;
    memcpy(whole, text, (size_t)(end - text)); /* what converts it reads, and tells, what is behind it too */
    whole[end - text] = '\0';
    value = PyOS_string_to_double(whole, &stop, NULL);
    if (value == -1.0 && PyErr_Occurred()) {
        PyErr_Clear();
        goto bad;
    }
    if (*stop == '\0')
        return PyFloat_FromDouble(value);
bad:
    nonsense("a double that is none");
    return NULL;
}

static PyObject *
error_reply(Parser *self, const char *text, Py_ssize_t length)
{
    PyObject *message = PyUnicode_DecodeUTF8(text, length, "replace"), *error = NULL;

    if (message != NULL) {
        error = PyObject_CallOneArg(self->error, message);
        Py_DECREF(message);
    }
    return error;
}

static PyObject *
line(Parser *self, char kind, const char *text, const char *end, int *tracked)
{
    switch (kind) {
    case ':':
        return integer(text, end);
    case ',':
        return number(text, end);
    case '-':
        *tracked = 1;
        return error_reply(self, text, end - text);
    case '#':
        if (end - text == 1 && (*text == 't' || *text == 'f'))
            return PyBool_FromLong(*text == 't');
        nonsense("a boolean that is none");
        return NULL;
    case '_':
        if (end == text)
            Py_RETURN_NONE;
        nonsense("a null with something in it");
        return NULL;
    default: /* a status, or a number too big for anything but its digits */
        return PyBytes_FromStringAndSize(text, end - text);
    }
}

static PyObject *
string(Parser *self, char kind, const char *text, Py_ssize_t length, int *tracked)
{
    if (kind == '!') {
        *tracked = 1;
        return error_reply(self, text, length);
    }
    if (kind == '=') { /* "txt:" goes before the text */
        if (length < 4 || text[3] != ':') {
            nonsense("a verbatim string without its format");
            return NULL;
        }
        text += 4;
        length -= 4;
    }
    return PyBytes_FromStringAndSize(text, length);
}

static PyObject *
array(Parser *self, Py_ssize_t length, const char **at, int depth, int *tracked)
{
    PyObject *tuple = PyTuple_New(length);
    int tracked_within = 0;

    if (tuple == NULL)
        return NULL;
    for (Py_ssize_t index = 0; index < length; index++) {
        PyObject *element = build(self, at, depth, &tracked_within);
        if (element == NULL) {
            Py_DECREF(tuple);
            return NULL;
        }
        PyTuple_SET_ITEM(tuple, index, element);
    }
    if (tracked_within)
        *tracked = 1;
    else if (length > 0) /* the empty tuple is everybody's */
        PyObject_GC_UnTrack(tuple);
    return tuple;
}

static PyObject *
map(Parser *self, Py_ssize_t length, const char **at, int depth, int *tracked)
{
    PyObject *dict = PyDict_New();

    *tracked = 1;
    for (Py_ssize_t index = 0; dict != NULL && index < length; index++) {
        PyObject *name = build(self, at, depth, tracked);
        PyObject *content = name != NULL ? build(self, at, depth, tracked) : NULL;
        if (content != NULL && (PyTuple_Check(name) || PyDict_Check(name))) {
            nonsense("a map in which a name is no word");
            Py_CLEAR(dict);
        }
        else if (content == NULL || PyDict_SetItem(dict, name, content) < 0)
            Py_CLEAR(dict);
        Py_XDECREF(name);
        Py_XDECREF(content);
    }
    return dict;
}

static PyObject *
build(Parser *self, const char **at, int depth, int *tracked)
{
    const char kind = **at, *after = NULL;
    Py_ssize_t length = 0;

    if (depth > MOST_DEPTH) {
        nonsense("replies within replies beyond all bounds");
        return NULL;
    }
    switch (kind) {
    case '$': case '=': case '!':
        scan_header(*at, self->data + self->end, &length, &after);
        *at = after;
        if (length < 0)
            Py_RETURN_NONE;
        *at += length + 2;
        return string(self, kind, after, length, tracked);
    case '*': case '~': case '>': case '%':
        scan_header(*at, self->data + self->end, &length, &after);
        *at = after;
        if (length < 0)
            Py_RETURN_NONE;
        return kind == '%' ? map(self, length, at, depth + 1, tracked)
                           : array(self, length, at, depth + 1, tracked);
    default: {
        const char *text = *at + 1, *end = memchr(text, '\r', MOST_LINE);
        *at = end + 2;
        return line(self, kind, text, end, tracked);
    }
    }
}

/* The object */

/* Makes room for so many bytes more: at the front where that is enough, else twice as much. */
static int
make_room(Parser *self, size_t more)
{
    size_t held = self->end - self->start, capacity = self->capacity;
    char *data;

    if (held == 0 && capacity > MOST_IDLE_CAPACITY)
        capacity = 0;
    else if (self->end + more <= capacity)
        return 0;
    if (self->start > 0) {
        memmove(self->data, self->data + self->start, held);
        self->seen -= self->start;
        self->end = held;
        self->start = 0;
    }
    if (capacity < LEAST_CAPACITY)
        capacity = LEAST_CAPACITY;
    while (capacity < held + more)
        capacity *= 2;
    if (capacity != self->capacity) {
        data = PyMem_Realloc(self->data, capacity);
        if (data == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        self->data = data;
        self->capacity = capacity;
    }
    return 0;
}

PyDoc_STRVAR(take_doc,
"take(replies, most, bounded, /)\n--\n\n"
"Appends at most so many replies to a list, as many as are there, and returns how many.\n\n"
"`bounded`: none is an array of ten million elements or more. What was pushed is no reply, and goes to\n"
"`pushed`. Raises ValueError for what is no RESP; nothing that\n"
"comes after it can be made sense of.");

static PyObject *
take(Parser *self, PyObject *const *arguments, Py_ssize_t count)
{
    Py_ssize_t taken = 0, most;
    int found = 0, bounded;

    if (count != 3 || !PyList_Check(arguments[0])) {
        PyErr_SetString(PyExc_TypeError, "take(replies: list, most: int, bounded: bool)");
        return NULL;
    }
    bounded = PyObject_IsTrue(arguments[2]);
    most = PyLong_AsSsize_t(arguments[1]);
    if (bounded < 0 || (most == -1 && PyErr_Occurred()))
        return NULL;
    if (self->busy || self->pushed == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "the parser is at work, or was not set up");
        return NULL;
    }
    self->busy = 1; /* what is built may run destructors, and they anything */
    while (taken < most && (found = scan(self, bounded)) == 1) {
        const char *at = self->data + self->start;
        int tracked = 0, pushed = *at == '>', failed;
        PyObject *reply = build(self, &at, 0, &tracked);
        if (reply == NULL) {
            found = -1;
            break;
        }
        failed = PyList_Append(pushed ? self->pushed : arguments[0], reply);
        Py_DECREF(reply);
        if (failed) {
            found = -1;
            break;
        }
        self->consumed += self->seen - self->start;
        self->start = self->seen;
        taken += !pushed;
    }
    self->busy = 0;
    if (self->start == self->end && make_room(self, 0) < 0)
        return NULL;
    return found < 0 ? NULL : PyLong_FromSsize_t(taken);
}

PyDoc_STRVAR(feed_doc, "feed(data, /)\n--\n\nAdds what has come.");

static PyObject *
feed(Parser *self, PyObject *argument)
{
    Py_buffer buffer;

    if (self->busy) {
        PyErr_SetString(PyExc_RuntimeError, "the parser is at work");
        return NULL;
    }
    if (PyObject_GetBuffer(argument, &buffer, PyBUF_SIMPLE) < 0)
        return NULL;
    if (make_room(self, (size_t)buffer.len) < 0) {
        PyBuffer_Release(&buffer);
        return NULL;
    }
    memcpy(self->data + self->end, buffer.buf, (size_t)buffer.len);
    self->end += (size_t)buffer.len;
    PyBuffer_Release(&buffer);
    Py_RETURN_NONE;
}

static int
parser_init(Parser *self, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"error", NULL};
    PyObject *error;

    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "O:Parser", names, &error))
        return -1;
    if (self->pushed == NULL && (self->pushed = PyList_New(0)) == NULL)
        return -1;
    Py_INCREF(error);
    Py_XSETREF(self->error, error);
    return make_room(self, 0);
}

static int
parser_traverse(Parser *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->error);
    Py_VISIT(self->pushed);
    return 0;
}

static int
parser_clear(Parser *self)
{
    Py_CLEAR(self->error);
    Py_CLEAR(self->pushed);
    return 0;
}

static void
parser_dealloc(Parser *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    parser_clear(self);
    PyMem_Free(self->data);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *
get_buffered(Parser *self, void *Py_UNUSED(closure))
{
    return PyLong_FromSize_t(self->end - self->start);
}

static PyObject *
get_consumed(Parser *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(self->consumed);
}

static PyObject *
get_pushed(Parser *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self->pushed != NULL ? self->pushed : Py_None);
}

static PyMethodDef methods[] = {
    {"feed", (PyCFunction)feed, METH_O, feed_doc},
    {"take", (PyCFunction)(void (*)(void))take, METH_FASTCALL, take_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef attributes[] = {
    {"buffered", (getter)get_buffered, NULL, "Bytes that are no whole reply yet, or were not taken.", NULL},
    {"consumed", (getter)get_consumed, NULL, "Bytes of all replies taken so far.", NULL},
    {"pushed", (getter)get_pushed, NULL, "A list of what was pushed.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(parser_doc,
"Parser(error)\n--\n\n"
"Makes replies of the bytes that it is fed; `error` makes of its text what stands for an error reply.");

static PyType_Slot slots[] = {
    {Py_tp_doc, (void *)parser_doc},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_init, parser_init},
    {Py_tp_traverse, parser_traverse},
    {Py_tp_clear, parser_clear},
    {Py_tp_dealloc, parser_dealloc},
    {Py_tp_methods, methods},
    {Py_tp_getset, attributes},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "oneatatime._compiled.Parser",
    .basicsize = sizeof(Parser),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = slots,
};

/* Keys -> commands */

static inline char *
put(char *at, const char *text, Py_ssize_t length)
{
    memcpy(at, text, (size_t)length);
    return at + length;
}

/* "$3\r\nkey\r\n" */
static inline char *
put_word(char *at, const char *word, Py_ssize_t length)
{
    char digits[24], *first = digits + sizeof digits;
    Py_ssize_t rest = length;

    do
        *--first = (char)('0' + rest % 10);
    while (rest /= 10);
    *at++ = '$';
    at = put(at, first, digits + sizeof digits - first);
    at = put(at, "\r\n", 2);
    at = put(at, word, length);
    return put(at, "\r\n", 2);
}

PyDoc_STRVAR(commands_doc,
"commands(before, keys, after, /)\n--\n\n"
"For each key the bytes before it, the key as a word of RESP, and the bytes after it.");

static PyObject *
commands(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    const Py_ssize_t around = 24; /* bytes that make a key a word, at most */
    Py_ssize_t size = 0, before, after, keys;
    PyObject *sequence, *packed = NULL;
    PyObject **items;
    char *at;

    if (count != 3 || !PyBytes_Check(arguments[0]) || !PyBytes_Check(arguments[2])) {
        PyErr_SetString(PyExc_TypeError, "commands(before: bytes, keys: sequence of bytes, after: bytes)");
        return NULL;
    }
    if ((sequence = PySequence_Fast(arguments[1], "keys is a sequence of bytes")) == NULL)
        return NULL;
    before = PyBytes_GET_SIZE(arguments[0]);
    after = PyBytes_GET_SIZE(arguments[2]);
    keys = PySequence_Fast_GET_SIZE(sequence);
    items = PySequence_Fast_ITEMS(sequence);
    for (Py_ssize_t index = 0; index < keys; index++) {
        if (!PyBytes_Check(items[index])) {
            PyErr_SetString(PyExc_TypeError, "keys is a sequence of bytes");
            goto done;
        }
        size += before + around + PyBytes_GET_SIZE(items[index]) + after;
    }
    if ((packed = PyBytes_FromStringAndSize(NULL, size)) == NULL)
        goto done;
    at = PyBytes_AS_STRING(packed);
    for (Py_ssize_t index = 0; index < keys; index++) {
        at = put(at, PyBytes_AS_STRING(arguments[0]), before);
        at = put_word(at, PyBytes_AS_STRING(items[index]), PyBytes_GET_SIZE(items[index]));
        at = put(at, PyBytes_AS_STRING(arguments[2]), after);
    }
    _PyBytes_Resize(&packed, at - PyBytes_AS_STRING(packed));
done:
    Py_DECREF(sequence);
    return packed;
}

/* Words -> dict */

PyDoc_STRVAR(fields_doc,
"fields(flat, /)\n--\n\n"
"A dict of name, content, name, content, ... Raises TypeError for what is no such thing.");

static PyObject *
fields(PyObject *Py_UNUSED(module), PyObject *flat)
{
    PyObject *dict, **words;
    Py_ssize_t count;

    if (!PyTuple_CheckExact(flat) || PyTuple_GET_SIZE(flat) % 2) {
        PyErr_SetString(PyExc_TypeError, "this is no tuple of pairs");
        return NULL;
    }
    count = PyTuple_GET_SIZE(flat);
    words = &PyTuple_GET_ITEM(flat, 0);
    dict = PyDict_New();
    for (Py_ssize_t index = 0; dict != NULL && index < count; index += 2)
        if (PyDict_SetItem(dict, words[index], words[index + 1]) < 0)
            Py_CLEAR(dict);
    return dict;
}

/* Words that are alike */

PyDoc_STRVAR(alike_doc,
"alike(words, digits, /)\n--\n\n"
"The places of each word in a sequence of bytes: {word: [place, ...]}. Where `digits` are not wanted, words\n"
"that differ in nothing else are alike.");

static PyObject *
without_digits(PyObject *word)
{
    Py_ssize_t length = PyBytes_GET_SIZE(word);
    const char *from = PyBytes_AS_STRING(word), *end = from + length;
    char small[256], *to = small, *kept = small;
    PyObject *rest = NULL;

    if (length > (Py_ssize_t)sizeof small && (kept = to = PyMem_Malloc((size_t)length)) == NULL)
        return PyErr_NoMemory();
    for (; from < end; from++)
        if (*from < '0' || *from > '9')
            *to++ = *from;
    rest = PyBytes_FromStringAndSize(kept, to - kept);
    if (kept != small)
        PyMem_Free(kept);
    return rest;
}

static int
add_place(PyObject *found, PyObject *word, Py_ssize_t index)
{
    PyObject *place, *places = PyDict_GetItemWithError(found, word);
    int failed;

    if (places == NULL) {
        if (PyErr_Occurred() || (places = PyList_New(0)) == NULL)
            return -1;
        failed = PyDict_SetItem(found, word, places);
        Py_DECREF(places); /* the dict holds it */
        if (failed)
            return -1;
    }
    if ((place = PyLong_FromSsize_t(index)) == NULL)
        return -1;
    failed = PyList_Append(places, place);
    Py_DECREF(place);
    return failed;
}

static PyObject *
alike(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    PyObject *sequence, *found, *word;
    int digits, failed = 0;

    if (count != 2 || (digits = PyObject_IsTrue(arguments[1])) < 0) {
        PyErr_SetString(PyExc_TypeError, "alike(words: sequence of bytes, digits: bool)");
        return NULL;
    }
    if ((sequence = PySequence_Fast(arguments[0], "words is a sequence of bytes")) == NULL)
        return NULL;
    found = PyDict_New();
    for (Py_ssize_t index = 0; found != NULL && index < PySequence_Fast_GET_SIZE(sequence); index++) {
        word = PySequence_Fast_GET_ITEM(sequence, index);
        if (!PyBytes_Check(word)) {
            PyErr_SetString(PyExc_TypeError, "words is a sequence of bytes");
            word = NULL;
        }
        else
            word = digits ? Py_NewRef(word) : without_digits(word);
        failed = word == NULL || add_place(found, word, index) < 0;
        Py_XDECREF(word);
        if (failed)
            Py_CLEAR(found);
    }
    Py_DECREF(sequence);
    return found;
}

PyDoc_STRVAR(size_of_doc,
"size_of(words, /)\n--\n\n"
"The bytes of all words in a sequence. Raises TypeError where one is not bytes.");

static PyObject *
size_of(PyObject *Py_UNUSED(module), PyObject *words)
{
    PyObject *sequence = PySequence_Fast(words, "words is a sequence of bytes"), *word;
    Py_ssize_t size = 0;

    if (sequence == NULL)
        return NULL;
    for (Py_ssize_t index = 0; index < PySequence_Fast_GET_SIZE(sequence); index++) {
        word = PySequence_Fast_GET_ITEM(sequence, index);
        if (!PyBytes_CheckExact(word)) {
            Py_DECREF(sequence);
            PyErr_SetString(PyExc_TypeError, "words is a sequence of bytes");
            return NULL;
        }
        size += PyBytes_GET_SIZE(word);
    }
    Py_DECREF(sequence);
    return PyLong_FromSsize_t(size);
}

static PyMethodDef functions[] = {
    {"alike", (PyCFunction)(void (*)(void))alike, METH_FASTCALL, alike_doc},
    {"commands", (PyCFunction)(void (*)(void))commands, METH_FASTCALL, commands_doc},
    {"fields", (PyCFunction)fields, METH_O, fields_doc},
    {"size_of", (PyCFunction)size_of, METH_O, size_of_doc},
    {NULL, NULL, 0, NULL},
};

static int
execute(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &spec, NULL);
    int added = type != NULL ? PyModule_AddType(module, (PyTypeObject *)type) : -1;
    Py_XDECREF(type);
    return added;
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, execute}, {0, NULL}};

static PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "oneatatime._compiled",
    .m_doc = "What runs once a reply and once a key, compiled.",
    .m_methods = functions,
    .m_slots = module_slots,
};

PyMODINIT_FUNC
PyInit__compiled(void)
{
    return PyModuleDef_Init(&module);
}
