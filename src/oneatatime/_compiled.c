/* What runs once a reply and once a key, compiled. `_resp.py` has the same in Python.

   Bytes -> replies of RESP2 and RESP3: a reply is built only when all of it is there: `scan` walks over what has come and counts the elements
   that are still missing; `build` makes the objects. So no length that a server claims makes room for
   anything before the bytes themselves have come, and what is built needs no second look at bounds.

   Arrays and sets are tuples. One that holds nothing the garbage collector could be interested in is hidden
   from it: thousands of little containers that wait for the loop cost no collection anything.

   Keys -> commands, words -> dict, keys by their shape: see `commands`, `fields`, `alike`. Values to JSON and back,
   keys by their slot in a cluster, and a set of keys' digests: `_json.py`, `_slot.py` and `_unique.py` have them
   in Python. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
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

/* Keys and values -> commands */

/* What a value is as words of a command: how many they are, or -1; `size` grows by their bytes. */
static Py_ssize_t
measure_words(PyObject *value, Py_ssize_t *size)
{
    const Py_ssize_t around = 24; /* bytes that make a text a word, at most */
    PyObject *word, *content, *iterator, **items;
    Py_ssize_t count = 0, place = 0;

    if (PyBytes_CheckExact(value)) {
        *size += around + PyBytes_GET_SIZE(value);
        return 1;
    }
    if (PyDict_CheckExact(value)) {
        while (PyDict_Next(value, &place, &word, &content)) {
            if (!PyBytes_CheckExact(word) || !PyBytes_CheckExact(content))
                return -1;
            *size += 2 * around + PyBytes_GET_SIZE(word) + PyBytes_GET_SIZE(content);
            count += 2;
        }
        return count;
    }
    if (PyList_CheckExact(value) || PyTuple_CheckExact(value)) {
        items = PySequence_Fast_ITEMS(value);
        count = PySequence_Fast_GET_SIZE(value);
        for (place = 0; place < count; place++) {
            if (!PyBytes_CheckExact(items[place]))
                return -1;
            *size += around + PyBytes_GET_SIZE(items[place]);
        }
        return count;
    }
    if (!PyAnySet_CheckExact(value) || (iterator = PyObject_GetIter(value)) == NULL)
        return -1;
    while ((word = PyIter_Next(iterator)) != NULL) {
        place = PyBytes_CheckExact(word) ? PyBytes_GET_SIZE(word) : -1;
        Py_DECREF(word);
        if (place < 0)
            break;
        *size += around + place;
        count++;
    }
    Py_DECREF(iterator);
    return word == NULL && !PyErr_Occurred() ? count : -1;
}

/* The same words, written: nothing of Python's runs between the two, so they are still what was measured. */
static char *
put_words(char *at, PyObject *value)
{
    PyObject *word, *content, *iterator, **items;
    Py_ssize_t count, place = 0;

    if (PyBytes_CheckExact(value))
        return put_word(at, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value));
    if (PyDict_CheckExact(value)) {
        while (PyDict_Next(value, &place, &word, &content)) {
            at = put_word(at, PyBytes_AS_STRING(word), PyBytes_GET_SIZE(word));
            at = put_word(at, PyBytes_AS_STRING(content), PyBytes_GET_SIZE(content));
        }
        return at;
    }
    if (!PyAnySet_CheckExact(value)) {
        items = PySequence_Fast_ITEMS(value);
        count = PySequence_Fast_GET_SIZE(value);
        for (; place < count; place++)
            at = put_word(at, PyBytes_AS_STRING(items[place]), PyBytes_GET_SIZE(items[place]));
        return at;
    }
    if ((iterator = PyObject_GetIter(value)) == NULL)
        return NULL;
    while ((word = PyIter_Next(iterator)) != NULL) {
        at = put_word(at, PyBytes_AS_STRING(word), PyBytes_GET_SIZE(word));
        Py_DECREF(word);
    }
    Py_DECREF(iterator);
    return at;
}

PyDoc_STRVAR(writes_doc,
"writes(name, keys, values, /)\n--\n\n"
"For each key one command of that name: the key, and the words of its value, which is bytes, or a dict, list,\n"
"tuple or set of bytes. Raises TypeError where one is anything else.");

static PyObject *
writes(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    const Py_ssize_t around = 24; /* bytes that make a text a word, or a number a head, at most */
    Py_ssize_t size = 0, keys, name, *words = NULL;
    PyObject *names = NULL, *values = NULL, *packed = NULL, **key, **value;
    char *at, head[32];

    if (count != 3 || !PyBytes_Check(arguments[0])) {
        PyErr_SetString(PyExc_TypeError, "writes(name: bytes, keys: sequence of bytes, values: sequence)");
        return NULL;
    }
    if ((names = PySequence_Fast(arguments[1], "keys is a sequence of bytes")) == NULL
        || (values = PySequence_Fast(arguments[2], "values is a sequence")) == NULL)
        goto done;
    keys = PySequence_Fast_GET_SIZE(names);
    if (PySequence_Fast_GET_SIZE(values) != keys) {
        PyErr_SetString(PyExc_ValueError, "there is a value for each key");
        goto done;
    }
    if ((words = PyMem_New(Py_ssize_t, keys + 1)) == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    key = PySequence_Fast_ITEMS(names);
    value = PySequence_Fast_ITEMS(values);
    name = PyBytes_GET_SIZE(arguments[0]);
    for (Py_ssize_t index = 0; index < keys; index++) {
        words[index] = PyBytes_CheckExact(key[index]) ? measure_words(value[index], &size) : -1;
        if (words[index] < 0) {
            if (!PyErr_Occurred())
                PyErr_SetString(PyExc_TypeError, "a key or value is not of bytes");
            goto done;
        }
        size += 3 * around + name + PyBytes_GET_SIZE(key[index]);
    }
    if ((packed = PyBytes_FromStringAndSize(NULL, size)) == NULL)
        goto done;
    at = PyBytes_AS_STRING(packed);
    for (Py_ssize_t index = 0; index < keys && at != NULL; index++) {
        at = put(at, head, sprintf(head, "*%zd\r\n", words[index] + 2));
        at = put_word(at, PyBytes_AS_STRING(arguments[0]), name);
        at = put_word(at, PyBytes_AS_STRING(key[index]), PyBytes_GET_SIZE(key[index]));
        at = put_words(at, value[index]);
    }
    if (at == NULL)
        Py_CLEAR(packed);
    else
        _PyBytes_Resize(&packed, at - PyBytes_AS_STRING(packed));
done:
    PyMem_Free(words);
    Py_XDECREF(names);
    Py_XDECREF(values);
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

PyDoc_STRVAR(buffers_doc,
"buffers(words, wide, /)\n--\n\n"
"All words one behind the other, and where each begins and the last one ends: (bytes, bytes of int32, or\n"
"of int64 where wide). Raises OverflowError where int32 is not enough, TypeError where not all are bytes.");

static PyObject *
buffers(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    PyObject *sequence, *data = NULL, *ends = NULL, *word, *found;
    Py_ssize_t length, size = 0;
    int wide;
    char *to, *end;

    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "buffers(words, wide)");
        return NULL;
    }
    wide = PyObject_IsTrue(arguments[1]);
    if (wide < 0)
        return NULL;
    sequence = PySequence_Fast(arguments[0], "words is a sequence of bytes");
    if (sequence == NULL)
        return NULL;
    length = PySequence_Fast_GET_SIZE(sequence);
    for (Py_ssize_t index = 0; index < length; index++) {
        word = PySequence_Fast_GET_ITEM(sequence, index);
        if (!PyBytes_CheckExact(word)) {
            PyErr_SetString(PyExc_TypeError, "words is a sequence of bytes");
            goto failed;
        }
        size += PyBytes_GET_SIZE(word);
    }
    if (!wide && size > INT32_MAX) {
        PyErr_SetString(PyExc_OverflowError, "the words are too long for 32 bits");
        goto failed;
    }
    data = PyBytes_FromStringAndSize(NULL, size);
    ends = PyBytes_FromStringAndSize(NULL, (length + 1) * (wide ? sizeof(int64_t) : sizeof(int32_t)));
    if (data == NULL || ends == NULL)
        goto failed;
    to = PyBytes_AS_STRING(data);
    end = PyBytes_AS_STRING(ends);
    size = 0;
    for (Py_ssize_t index = 0; index <= length; index++) {
        if (wide) {
            int64_t at = size;
            memcpy(end, &at, sizeof at);
            end += sizeof at;
        }
        else {
            int32_t at = (int32_t)size;
            memcpy(end, &at, sizeof at);
            end += sizeof at;
        }
        if (index < length) {
            word = PySequence_Fast_GET_ITEM(sequence, index);
            memcpy(to + size, PyBytes_AS_STRING(word), PyBytes_GET_SIZE(word));
            size += PyBytes_GET_SIZE(word);
        }
    }
    Py_DECREF(sequence);
    found = PyTuple_Pack(2, data, ends);
    Py_DECREF(data);
    Py_DECREF(ends);
    return found;
failed:
    Py_DECREF(sequence);
    Py_XDECREF(data);
    Py_XDECREF(ends);
    return NULL;
}

PyDoc_STRVAR(lengths_doc,
"lengths(values, /)\n--\n\n"
"The greatest length of any of some values, and the sum of their lengths: (int, int).");

static PyObject *
lengths(PyObject *Py_UNUSED(module), PyObject *values)
{
    PyObject *sequence = PySequence_Fast(values, "values is a sequence"), *value;
    Py_ssize_t longest = 0, all = 0, length;

    if (sequence == NULL)
        return NULL;
    for (Py_ssize_t index = 0; index < PySequence_Fast_GET_SIZE(sequence); index++) {
        value = PySequence_Fast_GET_ITEM(sequence, index);
        length = PyBytes_CheckExact(value) ? PyBytes_GET_SIZE(value)
            : PyTuple_CheckExact(value) ? PyTuple_GET_SIZE(value) : PyObject_Size(value);
        if (length < 0) {
            Py_DECREF(sequence);
            return NULL;
        }
        longest = length > longest ? length : longest;
        all += length;
    }
    Py_DECREF(sequence);
    return Py_BuildValue("nn", longest, all);
}

PyDoc_STRVAR(words_of_doc,
"words_of(replies, lengths, /)\n--\n\n"
"The words of several arrays in one list; None where one is no array of so many words.");

static PyObject *
words_of(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    PyObject *replies, *lengths, *reply, *word, *words = NULL;
    Py_ssize_t all = 0, at = 0, arrays, length;
    int fit = 1;

    if (count != 2 || !PyList_Check(arguments[0]) || !PyList_Check(arguments[1])) {
        PyErr_SetString(PyExc_TypeError, "words_of(replies: list, lengths: list of int)");
        return NULL;
    }
    replies = arguments[0];
    lengths = arguments[1];
    arrays = PyList_GET_SIZE(replies);
    fit = arrays == PyList_GET_SIZE(lengths);
    for (Py_ssize_t index = 0; fit && index < arrays; index++) {
        reply = PyList_GET_ITEM(replies, index);
        length = PyLong_AsSsize_t(PyList_GET_ITEM(lengths, index));
        if (length == -1 && PyErr_Occurred())
            return NULL;
        fit = PyTuple_CheckExact(reply) && PyTuple_GET_SIZE(reply) == length;
        all += length;
    }
    if (fit && (words = PyList_New(all)) == NULL)
        return NULL;
    for (Py_ssize_t index = 0; fit && index < arrays; index++) {
        reply = PyList_GET_ITEM(replies, index);
        for (Py_ssize_t place = 0; fit && place < PyTuple_GET_SIZE(reply); place++) {
            word = PyTuple_GET_ITEM(reply, place);
            fit = PyBytes_CheckExact(word);
            if (fit)
                PyList_SET_ITEM(words, at++, Py_NewRef(word));
        }
    }
    if (fit)
        return words;
    Py_XDECREF(words);
    Py_RETURN_NONE;
}

/* Values -> JSON: bytes as the text they are or as base64, and what is made of bytes. `_json.py` has it in Python. */

#define MOST_JSON_DEPTH 8 /* of a value; documents come as text */

typedef struct {
    char *data;
    size_t size;
    size_t capacity;
    int base64;
} Text;

/* Makes room for so many bytes more. */
static int
text_room(Text *text, size_t more)
{
    size_t capacity = text->capacity ? text->capacity : 4096;
    char *data;

    if (text->size + more <= text->capacity)
        return 0;
    while (capacity < text->size + more)
        capacity *= 2;
    if ((data = PyMem_Realloc(text->data, capacity)) == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    text->data = data;
    text->capacity = capacity;
    return 0;
}

static int
text_put(Text *text, const char *from, size_t length)
{
    if (text_room(text, length) < 0)
        return -1;
    if (length > 0) /* else there may be no text yet */
        memcpy(text->data + text->size, from, length);
    text->size += length;
    return 0;
}

/* How many bytes from here on stand for themselves: no control, quote, backslash, nor part of a longer character. */
static inline size_t
plain_run(const unsigned char *from, const unsigned char *end)
{
    const unsigned char *at = from;
    const uint64_t ones = 0x0101010101010101, tops = 0x8080808080808080;

    for (; end - at >= 8; at += 8) {
        uint64_t word, quote, backslash;
        memcpy(&word, at, 8);
        quote = word ^ ones * '"';
        backslash = word ^ ones * '\\';
        if ((word | (word - ones * ' ') | (quote - ones) | (backslash - ones)) & tops)
            break; /* or perhaps not: what follows looks closely */
    }
    for (; at < end; at++)
        if (*at < ' ' || *at == '"' || *at == '\\' || *at >= 0x80)
            break;
    return (size_t)(at - from);
}

/* The bytes of the character that begins here with one over 127, or 0 where it is not UTF-8. */
static inline int
character(const unsigned char *at, const unsigned char *end)
{
    const unsigned char lead = *at;
    int length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;

    if (lead < 0xc2 || lead > 0xf4 || end - at < length)
        return 0;
    for (int place = 1; place < length; place++)
        if ((at[place] & 0xc0) != 0x80)
            return 0;
    if ((lead == 0xe0 && at[1] < 0xa0) || (lead == 0xed && at[1] > 0x9f) || /* too long; half a pair */
        (lead == 0xf0 && at[1] < 0x90) || (lead == 0xf4 && at[1] > 0x8f))  /* too long; beyond U+10FFFF */
        return 0;
    return length;
}

static int
text_escape(Text *text, unsigned char byte)
{
    static const char hexadecimal[] = "0123456789abcdef";
    char escape[6] = {'\\', 'u', '0', '0', hexadecimal[byte >> 4], hexadecimal[byte & 15]};

    switch (byte) {
    case '"': case '\\': escape[1] = (char)byte; break;
    case '\n': escape[1] = 'n'; break;
    case '\r': escape[1] = 'r'; break;
    case '\t': escape[1] = 't'; break;
    case '\b': escape[1] = 'b'; break;
    case '\f': escape[1] = 'f'; break;
    default: return text_put(text, escape, 6);
    }
    return text_put(text, escape, 2);
}

/* 1: it is there; 0: it is not UTF-8; -1: an exception is set. The same of all that follows. */
static int
text_utf8(Text *text, const unsigned char *at, const unsigned char *end)
{
    if (text_put(text, "\"", 1) < 0)
        return -1;
    while (at < end) {
        size_t run = plain_run(at, end);
        const unsigned char *from = at;
        at += run;
        while (at < end && *at >= 0x80) {
            int length = character(at, end);
            if (length == 0)
                return 0;
            at += length;
        }
        if (at > from && text_put(text, (const char *)from, (size_t)(at - from)) < 0)
            return -1;
        if (at < end && (*at < ' ' || *at == '"' || *at == '\\') && text_escape(text, *at++) < 0)
            return -1;
    }
    return text_put(text, "\"", 1) < 0 ? -1 : 1;
}

static const char base64_digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static signed char base64_values[256]; /* one more than a digit is worth; 0: it is none. Filled as crc_table is */

static void
fill_base64_values(void)
{
    for (int digit = 0; digit < 64; digit++)
        base64_values[(unsigned char)base64_digits[digit]] = (signed char)(digit + 1);
}

static int
text_base64(Text *text, const unsigned char *at, size_t length)
{
    const char *const digits = base64_digits;
    char *to;

    if (text_room(text, length / 3 * 4 + 6) < 0)
        return -1;
    to = text->data + text->size;
    *to++ = '"';
    for (; length >= 3; at += 3, length -= 3) {
        *to++ = digits[at[0] >> 2];
        *to++ = digits[(at[0] & 3) << 4 | at[1] >> 4];
        *to++ = digits[(at[1] & 15) << 2 | at[2] >> 6];
        *to++ = digits[at[2] & 63];
    }
    if (length > 0) {
        const unsigned second = length == 2 ? at[1] : 0;
        *to++ = digits[at[0] >> 2];
        *to++ = digits[(at[0] & 3) << 4 | second >> 4];
        *to++ = length == 2 ? digits[(second & 15) << 2] : '=';
        *to++ = '=';
    }
    *to++ = '"';
    text->size = (size_t)(to - text->data);
    return 1;
}

static int
text_number(Text *text, PyObject *value)
{
    PyObject *shown = NULL;
    const char *digits;
    Py_ssize_t length;
    int failed = -1;

    if (PyFloat_CheckExact(value)) {
        const double number = PyFloat_AS_DOUBLE(value);
        char *made = PyOS_double_to_string(number, 'r', 0, Py_DTSF_ADD_DOT_0, NULL);
        const char *quote = number - number == 0 ? "" : "\""; /* there are no others in JSON */
        if (made == NULL)
            return -1;
        failed = text_put(text, quote, strlen(quote)) < 0 || text_put(text, made, strlen(made)) < 0 ||
                 text_put(text, quote, strlen(quote)) < 0;
        PyMem_Free(made);
        return failed ? -1 : 1;
    }
    if ((shown = PyObject_Str(value)) != NULL && (digits = PyUnicode_AsUTF8AndSize(shown, &length)) != NULL)
        failed = text_put(text, digits, (size_t)length);
    Py_XDECREF(shown);
    return failed < 0 ? -1 : 1;
}

static int text_value(Text *text, PyObject *value, int depth);

static int
text_array(Text *text, PyObject *value, int depth)
{
    int found;

    if (text_put(text, "[", 1) < 0)
        return -1;
    for (Py_ssize_t index = 0; index < PySequence_Fast_GET_SIZE(value); index++) {
        if (index > 0 && text_put(text, ",", 1) < 0)
            return -1;
        if ((found = text_value(text, PySequence_Fast_GET_ITEM(value, index), depth)) != 1)
            return found;
    }
    return text_put(text, "]", 1) < 0 ? -1 : 1;
}

static int
text_object(Text *text, PyObject *value, int depth)
{
    PyObject *name, *content;
    Py_ssize_t place = 0;
    int found, first = 1;

    if (text_put(text, "{", 1) < 0)
        return -1;
    while (PyDict_Next(value, &place, &name, &content)) {
        if (!first && text_put(text, ",", 1) < 0)
            return -1;
        first = 0;
        if ((found = text_value(text, name, depth)) != 1)
            return found;
        if (text_put(text, ":", 1) < 0)
            return -1;
        if ((found = text_value(text, content, depth)) != 1)
            return found;
    }
    return text_put(text, "}", 1) < 0 ? -1 : 1;
}

static int
text_value(Text *text, PyObject *value, int depth)
{
    if (PyBytes_CheckExact(value)) {
        const unsigned char *at = (const unsigned char *)PyBytes_AS_STRING(value);
        const Py_ssize_t length = PyBytes_GET_SIZE(value);
        return text->base64 ? text_base64(text, at, (size_t)length) : text_utf8(text, at, at + length);
    }
    if (depth < MOST_JSON_DEPTH) {
        if (PyList_CheckExact(value) || PyTuple_CheckExact(value))
            return text_array(text, value, depth + 1);
        if (PyDict_CheckExact(value))
            return text_object(text, value, depth + 1);
    }
    if (PyUnicode_CheckExact(value)) { /* it is JSON already */
        Py_ssize_t length;
        const char *json = PyUnicode_AsUTF8AndSize(value, &length);
        return json == NULL || text_put(text, json, (size_t)length) < 0 ? -1 : 1;
    }
    if (PyLong_CheckExact(value) || PyFloat_CheckExact(value))
        return text_number(text, value);
    if (value == Py_None)
        return text_put(text, "null", 4) < 0 ? -1 : 1;
    PyErr_Format(PyExc_TypeError, "%s has no form in JSON here", Py_TYPE(value)->tp_name);
    return -1;
}

PyDoc_STRVAR(texts_doc,
"texts(values, base64, /)\n--\n\n"
"Each value of a sequence as JSON in UTF-8; None for one in which bytes are not UTF-8, unless they become base64.");

static PyObject *
texts(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    PyObject *sequence, *found, *made;
    Text text = {NULL, 0, 0, 0};

    if (count != 2 || (text.base64 = PyObject_IsTrue(arguments[1])) < 0) {
        PyErr_SetString(PyExc_TypeError, "texts(values: sequence, base64: bool)");
        return NULL;
    }
    if ((sequence = PySequence_Fast(arguments[0], "values is a sequence")) == NULL)
        return NULL;
    found = PyList_New(PySequence_Fast_GET_SIZE(sequence));
    for (Py_ssize_t index = 0; found != NULL && index < PyList_GET_SIZE(found); index++) {
        int utf8;
        text.size = 0;
        utf8 = text_value(&text, PySequence_Fast_GET_ITEM(sequence, index), 0);
        made = utf8 < 0 ? NULL : utf8 ? PyBytes_FromStringAndSize(text.data, (Py_ssize_t)text.size)
                                      : Py_NewRef(Py_None);
        if (made == NULL)
            Py_CLEAR(found);
        else
            PyList_SET_ITEM(found, index, made);
    }
    PyMem_Free(text.data);
    Py_DECREF(sequence);
    return found;
}

/* JSON lines -> rows: of lines as we write them. One that is in any way different is given back as it is, for
   Python to read it, or to say what is wrong with it. Below NULL without an exception means just that. */

#define MOST_NUMBER 300 /* bytes of a score; the longest that anybody writes has 26 */

typedef struct {
    const unsigned char *at;
    const unsigned char *end;
    Text text; /* what a string with escapes is put together in */
} Line;

static inline int
line_skip(Line *line, const char *word, size_t length)
{
    if ((size_t)(line->end - line->at) < length || memcmp(line->at, word, length) != 0)
        return 0;
    line->at += length;
    return 1;
}

#define SKIP(line, word) line_skip(line, word, sizeof(word) - 1)

static inline int
hexadecimal_digit(unsigned char byte)
{
    return byte >= '0' && byte <= '9' ? byte - '0'
        : byte >= 'a' && byte <= 'f' ? byte - 'a' + 10
        : byte >= 'A' && byte <= 'F' ? byte - 'A' + 10 : -1;
}

/* The four digits of an escape, or -1 where they are no such thing. */
static int
line_unit(Line *line)
{
    int unit = 0, digit;

    if (line->end - line->at < 4)
        return -1;
    for (int place = 0; place < 4; place++) {
        if ((digit = hexadecimal_digit(*line->at++)) < 0)
            return -1;
        unit = unit << 4 | digit;
    }
    return unit;
}

/* What stands behind a backslash, into the text. 1: done; 0: it is nothing plain; -1: an exception. */
static int
line_escape(Line *line)
{
    static const char names[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    const char *name;
    char bytes[4];
    int unit, low, length;

    if (line->at == line->end)
        return 0;
    if (*line->at != 'u') {
        if (*line->at == '\0' || (name = strchr(names, *line->at)) == NULL)
            return 0;
        line->at++;
        return text_put(&line->text, meant + (name - names), 1) < 0 ? -1 : 1;
    }
    line->at++;
    if ((unit = line_unit(line)) < 0)
        return 0;
    if (unit >= 0xd800 && unit < 0xe000) { /* halves of a pair */
        if (unit >= 0xdc00 || !SKIP(line, "\\u") || (low = line_unit(line)) < 0xdc00 || low >= 0xe000)
            return 0;
        unit = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
    }
    length = unit < 0x80 ? 1 : unit < 0x800 ? 2 : unit < 0x10000 ? 3 : 4;
    for (int place = length - 1; place > 0; place--, unit >>= 6)
        bytes[place] = (char)(0x80 | (unit & 0x3f));
    bytes[0] = (char)(length == 1 ? unit : ((0xf00 >> length) & 0xff) | unit);
    return text_put(&line->text, bytes, (size_t)length) < 0 ? -1 : 1;
}

/* Bytes that have been written as base64, to the very digit. */
static PyObject *
line_base64(const unsigned char *at, const unsigned char *end)
{
    const Py_ssize_t length = end - at;
    Py_ssize_t padding = 0;
    unsigned char *to;
    unsigned held = 0;
    int bits = 0;
    PyObject *made;

    if (length % 4 != 0)
        return NULL;
    while (padding < 2 && end > at && end[-1] == '=') {
        end--;
        padding++;
    }
    if ((made = PyBytes_FromStringAndSize(NULL, length / 4 * 3 - padding)) == NULL)
        return NULL;
    to = (unsigned char *)PyBytes_AS_STRING(made);
    for (; at < end; at++) {
        if (base64_values[*at] == 0)
            break;
        held = held << 6 | (unsigned)(base64_values[*at] - 1);
        if ((bits += 6) >= 8) {
            bits -= 8;
            *to++ = (unsigned char)(held >> bits);
        }
    }
    if (at == end && (held & ((1u << bits) - 1)) == 0)
        return made;
    Py_DECREF(made);
    return NULL;
}

/* A string, as the bytes of its text, or as those that its text is the base64 of. */
static PyObject *
line_string(Line *line)
{
    const unsigned char *from;
    int escaped = 0, length;

    if (!SKIP(line, "\""))
        return NULL;
    from = line->at;
    line->text.size = 0;
    for (;;) {
        line->at += plain_run(line->at, line->end);
        if (line->at == line->end || *line->at < ' ')
            return NULL;
        if (*line->at == '"')
            break;
        if (*line->at >= 0x80) {
            if ((length = character(line->at, line->end)) == 0)
                return NULL;
            line->at += length;
            continue;
        }
        if (text_put(&line->text, (const char *)from, (size_t)(line->at - from)) < 0)
            return NULL;
        line->at++;
        if (line_escape(line) != 1)
            return NULL;
        escaped = 1;
        from = line->at;
    }
    if (line->text.base64)
        return escaped ? NULL : line_base64(from, line->at++);
    if (!escaped)
        return PyBytes_FromStringAndSize((const char *)from, line->at++ - from);
    if (text_put(&line->text, (const char *)from, (size_t)(line->at++ - from)) < 0)
        return NULL;
    return PyBytes_FromStringAndSize(line->text.data, (Py_ssize_t)line->text.size);
}

static inline const unsigned char *
digits_end(const unsigned char *at, const unsigned char *end)
{
    while (at < end && *at >= '0' && *at <= '9')
        at++;
    return at;
}

/* A whole number from 0 on. */
static PyObject *
line_whole(Line *line)
{
    const unsigned char *from = line->at, *end = digits_end(from, line->end);

    if (end == from || end - from > 18 || (*from == '0' && end - from > 1))
        return NULL;
    line->at = end;
    return integer((const char *)from, (const char *)end);
}

static PyObject *
line_score(Line *line)
{
    const unsigned char *from = line->at, *at = from, *end = line->end, *whole;

    if (SKIP(line, "\"inf\""))
        return PyFloat_FromDouble(Py_HUGE_VAL);
    if (SKIP(line, "\"-inf\""))
        return PyFloat_FromDouble(-Py_HUGE_VAL);
    at += at < end && *at == '-';
    whole = at;
    at = digits_end(at, end);
    if (at == whole || (*whole == '0' && at - whole > 1))
        return NULL;
    if (at < end && *at == '.') {
        whole = ++at;
        if ((at = digits_end(at, end)) == whole)
            return NULL;
    }
    else if (*from == '-' && *whole == '0')
        return NULL; /* an integer, which has no sign then */
    if (at < end && (*at == 'e' || *at == 'E')) {
        at++;
        at += at < end && (*at == '-' || *at == '+');
        whole = at;
        if ((at = digits_end(at, end)) == whole)
            return NULL;
    }
    if (at - from > MOST_NUMBER)
        return NULL;
    line->at = at;
    return number((const char *)from, (const char *)at);
}

/* The id of an entry: "1526919030474-55". */
static PyObject *
line_id(Line *line)
{
    const unsigned char *from = line->at + 1, *dash, *end;

    if (!SKIP(line, "\""))
        return NULL;
    dash = digits_end(from, line->end);
    if (dash == from || dash - from > MOST_DIGITS || dash == line->end || *dash != '-')
        return NULL;
    end = digits_end(dash + 1, line->end);
    if (end == dash + 1 || end - dash - 1 > MOST_DIGITS || end == line->end || *end != '"')
        return NULL;
    line->at = end + 1;
    return PyBytes_FromStringAndSize((const char *)from, end - from);
}

static PyObject *
line_object(Line *line)
{
    PyObject *dict, *name, *content;
    Py_ssize_t count = 0;
    int failed;

    if (!SKIP(line, "{") || (dict = PyDict_New()) == NULL)
        return NULL;
    if (SKIP(line, "}"))
        return dict;
    do {
        name = line_string(line);
        content = name != NULL && SKIP(line, ":") ? line_string(line) : NULL;
        failed = content == NULL || PyDict_SetItem(dict, name, content) < 0;
        Py_XDECREF(name);
        Py_XDECREF(content);
        count++;
    } while (!failed && SKIP(line, ","));
    if (!failed && SKIP(line, "}") && PyDict_GET_SIZE(dict) == count)
        return dict;
    Py_DECREF(dict);
    return NULL;
}

/* "[...,...]": a pair. */
static PyObject *
line_pair(Line *line, PyObject *(*first)(Line *), PyObject *(*second)(Line *))
{
    PyObject *one, *other = NULL, *pair = NULL;

    if (!SKIP(line, "["))
        return NULL;
    one = first(line);
    if (one != NULL && SKIP(line, ",") && (other = second(line)) != NULL && SKIP(line, "]"))
        pair = PyTuple_Pack(2, one, other);
    Py_XDECREF(one);
    Py_XDECREF(other);
    return pair;
}

static PyObject *
line_scored(Line *line)
{
    return line_pair(line, line_string, line_score);
}

static PyObject *
line_entry(Line *line)
{
    return line_pair(line, line_id, line_object);
}

static PyObject *
line_array(Line *line, PyObject *(*element)(Line *))
{
    PyObject *list, *one;
    int failed;

    if (!SKIP(line, "[") || (list = PyList_New(0)) == NULL)
        return NULL;
    if (SKIP(line, "]"))
        return list;
    do {
        one = element(line);
        failed = one == NULL || PyList_Append(list, one) < 0;
        Py_XDECREF(one);
    } while (!failed && SKIP(line, ","));
    if (!failed && SKIP(line, "]"))
        return list;
    Py_DECREF(list);
    return NULL;
}

static PyObject *
line_set(Line *line)
{
    PyObject *list = line_array(line, line_string), *set;

    if (list == NULL)
        return NULL;
    set = PySet_New(list);
    if (set != NULL && PySet_GET_SIZE(set) != PyList_GET_SIZE(list))
        Py_CLEAR(set);
    Py_DECREF(list);
    return set;
}

enum { STRING, HASH, LIST, SET, ZSET, STREAM, KINDS };

static PyObject *
line_value(Line *line, int kind)
{
    switch (kind) {
    case STRING: return line_string(line);
    case HASH: return line_object(line);
    case LIST: return line_array(line, line_string);
    case SET: return line_set(line);
    case ZSET: return line_array(line, line_scored);
    default: return line_array(line, line_entry);
    }
}

/* The kind of the value, or -1. */
static int
line_kind(Line *line)
{
    return SKIP(line, ",\"type\":\"string\",") ? STRING
        : SKIP(line, ",\"type\":\"hash\",") ? HASH
        : SKIP(line, ",\"type\":\"list\",") ? LIST
        : SKIP(line, ",\"type\":\"set\",") ? SET
        : SKIP(line, ",\"type\":\"zset\",") ? ZSET
        : SKIP(line, ",\"type\":\"stream\",") ? STREAM : -1;
}

/* The row of a line: (key, type, value, db, expires_at, None, None). */
static PyObject *
line_row(Line *line, PyObject *const kinds[KINDS])
{
    PyObject *key = NULL, *value = NULL, *db = NULL, *moment = NULL, *row = NULL;
    const unsigned char *key_at;
    int kind, plain;

    line->text.base64 = 0;
    if (!SKIP(line, "{\"key\":"))
        return NULL;
    key_at = line->at;
    if ((key = line_string(line)) == NULL || (kind = line_kind(line)) < 0)
        goto done;
    if (SKIP(line, "\"enc\":\"base64\",")) {
        Line again = {key_at, line->end, line->text};
        again.text.base64 = line->text.base64 = 1;
        Py_DECREF(key);
        key = line_string(&again);
        line->text.data = again.text.data;
        line->text.capacity = again.text.capacity;
        if (key == NULL)
            goto done;
    }
    plain = !SKIP(line, "\"db\":") || ((db = line_whole(line)) != NULL && SKIP(line, ","));
    if (plain && SKIP(line, "\"expires_at\":"))
        plain = (moment = line_whole(line)) != NULL && SKIP(line, ",");
    if (!plain || !SKIP(line, "\"value\":") || (value = line_value(line, kind)) == NULL)
        goto done;
    if (SKIP(line, "}") && line->at == line->end)
        row = PyTuple_Pack(7, key, kinds[kind], value, db != NULL ? db : Py_None,
                           moment != NULL ? moment : Py_None, Py_None, Py_None);
    if (row != NULL && kind == STRING)
        PyObject_GC_UnTrack(row);
done:
    Py_XDECREF(key);
    Py_XDECREF(value);
    Py_XDECREF(db);
    Py_XDECREF(moment);
    return row;
}

PyDoc_STRVAR(rows_doc,
"rows(block, /)\n--\n\n"
"The lines of a block, each as its row (key, type, value, db, expires_at, None, None), or as the bytes that it\n"
"is where it is not just as we write the lines of the known types.");

static PyObject *
rows(PyObject *Py_UNUSED(module), PyObject *block)
{
    static const char *const names[KINDS] = {"string", "hash", "list", "set", "zset", "stream"};
    PyObject *kinds[KINDS] = {NULL}, *found = NULL, *row;
    const unsigned char *at, *end, *newline;
    Line line = {NULL, NULL, {NULL, 0, 0, 0}};
    int failed = 0;

    if (!PyBytes_Check(block)) {
        PyErr_SetString(PyExc_TypeError, "a block is bytes");
        return NULL;
    }
    for (int kind = 0; kind < KINDS; kind++)
        if ((kinds[kind] = PyUnicode_InternFromString(names[kind])) == NULL)
            goto done;
    at = (const unsigned char *)PyBytes_AS_STRING(block);
    end = at + PyBytes_GET_SIZE(block);
    found = PyList_New(0);
    for (; found != NULL && at < end; at = newline + 1) {
        if ((newline = memchr(at, '\n', (size_t)(end - at))) == NULL)
            newline = end;
        line.at = at;
        line.end = newline;
        row = line_row(&line, kinds);
        if (row == NULL && !PyErr_Occurred())
            row = PyBytes_FromStringAndSize((const char *)at, newline - at);
        failed = row == NULL || PyList_Append(found, row) < 0;
        Py_XDECREF(row);
        if (failed)
            Py_CLEAR(found);
    }
done:
    PyMem_Free(line.text.data);
    for (int kind = 0; kind < KINDS; kind++)
        Py_XDECREF(kinds[kind]);
    return found;
}

/* Keys -> slots */

static unsigned short crc_table[256]; /* CRC-16/XMODEM; filled when the module is made, always with the same */

static void
fill_crc_table(void)
{
    for (unsigned byte = 0; byte < 256; byte++) {
        unsigned crc = byte << 8;
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 0x8000 ? (crc << 1) ^ 0x1021 : crc << 1;
        crc_table[byte] = (unsigned short)crc;
    }
}

/* The slot of a key, or -1 and an exception. What is between its first '{' and the first '}' after it counts
   alone, unless it is nothing. */
static int
slot_of(PyObject *key)
{
    const unsigned char *at, *end, *open, *close;
    unsigned crc = 0;

    if (!PyBytes_Check(key)) {
        PyErr_SetString(PyExc_TypeError, "a key is bytes");
        return -1;
    }
    at = (const unsigned char *)PyBytes_AS_STRING(key);
    end = at + PyBytes_GET_SIZE(key);
    if ((open = memchr(at, '{', (size_t)(end - at))) != NULL) {
        close = memchr(open + 1, '}', (size_t)(end - open - 1));
        if (close != NULL && close > open + 1) {
            at = open + 1;
            end = close;
        }
    }
    for (; at < end; at++)
        crc = ((crc << 8) & 0xffff) ^ crc_table[(crc >> 8) ^ *at];
    return (int)(crc & 16383);
}

PyDoc_STRVAR(keyslot_doc, "keyslot(key, /)\n--\n\nThe cluster slot that a key is in.");

static PyObject *
keyslot(PyObject *Py_UNUSED(module), PyObject *key)
{
    int slot = slot_of(key);

    return slot < 0 ? NULL : PyLong_FromLong(slot);
}

PyDoc_STRVAR(by_slot_doc,
"by_slot(keys, /)\n--\n\n"
"The places of each slot's keys in a sequence: {slot: [place, ...]}.");

static PyObject *
by_slot(PyObject *Py_UNUSED(module), PyObject *keys)
{
    PyObject *sequence = PySequence_Fast(keys, "keys is a sequence of bytes"), *found, *slot;
    int failed = 0;

    if (sequence == NULL)
        return NULL;
    found = PyDict_New();
    for (Py_ssize_t index = 0; found != NULL && index < PySequence_Fast_GET_SIZE(sequence); index++) {
        slot = keyslot(NULL, PySequence_Fast_GET_ITEM(sequence, index));
        failed = slot == NULL || add_place(found, slot, index) < 0;
        Py_XDECREF(slot);
        if (failed)
            Py_CLEAR(found);
    }
    Py_DECREF(sequence);
    return found;
}

PyDoc_STRVAR(slot_runs_doc,
"slot_runs(keys, /)\n--\n\n"
"The slot of each run of keys of one slot, in their order: [int, ...].");

static PyObject *
slot_runs(PyObject *Py_UNUSED(module), PyObject *keys)
{
    PyObject *sequence = PySequence_Fast(keys, "keys is a sequence of bytes"), *found, *number;
    int slot, before = -1, failed = 0;

    if (sequence == NULL)
        return NULL;
    found = PyList_New(0);
    for (Py_ssize_t index = 0; found != NULL && index < PySequence_Fast_GET_SIZE(sequence); index++) {
        slot = slot_of(PySequence_Fast_GET_ITEM(sequence, index));
        failed = slot < 0;
        if (!failed && slot != before) {
            number = PyLong_FromLong(slot);
            failed = number == NULL || PyList_Append(found, number) < 0;
            Py_XDECREF(number);
        }
        before = slot;
        if (failed)
            Py_CLEAR(found);
    }
    Py_DECREF(sequence);
    return found;
}

/* Keys -> a command for each run of keys of the same slot */

PyDoc_STRVAR(slot_commands_doc,
"slot_commands(name, keys, /)\n--\n\n"
"One command of that name for each run of keys of one slot, and how many keys each has: (bytes, [int, ...]).");

static PyObject *
slot_commands(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    const Py_ssize_t around = 24; /* bytes that make a key a word, or a number a head, at most */
    Py_ssize_t size = 0, keys, from, until, name;
    PyObject *sequence, *packed = NULL, *lengths = NULL, *length, *both = NULL;
    PyObject **items;
    char *at, head[32];
    int *slots = NULL;

    if (count != 2 || !PyBytes_Check(arguments[0])) {
        PyErr_SetString(PyExc_TypeError, "slot_commands(name: bytes, keys: sequence of bytes)");
        return NULL;
    }
    if ((sequence = PySequence_Fast(arguments[1], "keys is a sequence of bytes")) == NULL)
        return NULL;
    keys = PySequence_Fast_GET_SIZE(sequence);
    items = PySequence_Fast_ITEMS(sequence);
    name = PyBytes_GET_SIZE(arguments[0]);
    if ((slots = PyMem_New(int, keys + 1)) == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    for (Py_ssize_t index = 0; index < keys; index++) {
        if ((slots[index] = slot_of(items[index])) < 0)
            goto done;
        size += around + PyBytes_GET_SIZE(items[index]);
        if (index == 0 || slots[index] != slots[index - 1])
            size += 2 * around + name;
    }
    packed = PyBytes_FromStringAndSize(NULL, size);
    lengths = PyList_New(0);
    if (packed == NULL || lengths == NULL)
        goto done;
    at = PyBytes_AS_STRING(packed);
    for (from = 0; from < keys; from = until) {
        for (until = from + 1; until < keys && slots[until] == slots[from]; until++)
            ;
        at = put(at, head, sprintf(head, "*%zd\r\n", until - from + 1));
        at = put_word(at, PyBytes_AS_STRING(arguments[0]), name);
        for (Py_ssize_t index = from; index < until; index++)
            at = put_word(at, PyBytes_AS_STRING(items[index]), PyBytes_GET_SIZE(items[index]));
        if ((length = PyLong_FromSsize_t(until - from)) == NULL || PyList_Append(lengths, length) < 0) {
            Py_XDECREF(length);
            goto done;
        }
        Py_DECREF(length);
    }
    if (_PyBytes_Resize(&packed, at - PyBytes_AS_STRING(packed)) == 0)
        both = PyTuple_Pack(2, packed, lengths);
done:
    PyMem_Free(slots);
    Py_XDECREF(packed);
    Py_XDECREF(lengths);
    Py_DECREF(sequence);
    return both;
}

/* Keys -> digests: BLAKE2b (RFC 7693) with a key, of 16 bytes, as `hashlib` has it */

typedef struct {
    uint64_t low, high; /* both 0: there is none */
} Digest;

typedef struct {
    uint64_t begun[8]; /* the state behind the block with the key */
    uint64_t empty[8]; /* and where it is the last one too */
} Hasher;

#define BLOCK 128

static const uint64_t blake_start[8] = {
    0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
    0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179,
};

static const unsigned char blake_order[10][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4},
    {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13},
    {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11},
    {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5},
    {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0},
};

#define TURNED(word, by) ((word) >> (by) | (word) << (64 - (by)))
#define MIX(a, b, c, d, first, second) \
    a += b + (first); d = TURNED(d ^ a, 32); c += d; b = TURNED(b ^ c, 24); \
    a += b + (second); d = TURNED(d ^ a, 16); c += d; b = TURNED(b ^ c, 63)
#define MIX_AT(row, place, a, b, c, d) \
    MIX(v[a], v[b], v[c], v[d], m[blake_order[row][2 * place]], m[blake_order[row][2 * place + 1]])
#define ROUND(row) \
    MIX_AT(row, 0, 0, 4, 8, 12); MIX_AT(row, 1, 1, 5, 9, 13); \
    MIX_AT(row, 2, 2, 6, 10, 14); MIX_AT(row, 3, 3, 7, 11, 15); \
    MIX_AT(row, 4, 0, 5, 10, 15); MIX_AT(row, 5, 1, 6, 11, 12); \
    MIX_AT(row, 6, 2, 7, 8, 13); MIX_AT(row, 7, 3, 4, 9, 14)

static void
blake_block(uint64_t state[8], const unsigned char *block, uint64_t bytes, int last)
{
    uint64_t v[16], m[16];

    for (int word = 0; word < 16; word++, block += 8)
        m[word] = (uint64_t)block[0] | (uint64_t)block[1] << 8 | (uint64_t)block[2] << 16 |
                  (uint64_t)block[3] << 24 | (uint64_t)block[4] << 32 | (uint64_t)block[5] << 40 |
                  (uint64_t)block[6] << 48 | (uint64_t)block[7] << 56;
    memcpy(v, state, 64);
    memcpy(v + 8, blake_start, 64);
    v[12] ^= bytes;
    if (last)
        v[14] = ~v[14];
    ROUND(0); ROUND(1); ROUND(2); ROUND(3); ROUND(4); ROUND(5);
    ROUND(6); ROUND(7); ROUND(8); ROUND(9); ROUND(0); ROUND(1);
    for (int word = 0; word < 8; word++)
        state[word] ^= v[word] ^ v[word + 8];
}

static int
hasher_init(Hasher *self, PyObject *secret)
{
    unsigned char block[BLOCK] = {0};

    if (!PyBytes_Check(secret) || PyBytes_GET_SIZE(secret) != 16) {
        PyErr_SetString(PyExc_TypeError, "the secret is bytes, 16 of them");
        return -1;
    }
    memcpy(block, PyBytes_AS_STRING(secret), 16);
    memcpy(self->begun, blake_start, 64);
    self->begun[0] ^= 0x01010000 ^ 16 << 8 ^ 16; /* lengths of key and digest */
    memcpy(self->empty, self->begun, 64);
    blake_block(self->begun, block, BLOCK, 0);
    blake_block(self->empty, block, BLOCK, 1);
    return 0;
}

static Digest
digest_of(const Hasher *self, PyObject *word)
{
    const unsigned char *at = (const unsigned char *)PyBytes_AS_STRING(word);
    size_t left = (size_t)PyBytes_GET_SIZE(word);
    unsigned char block[BLOCK] = {0};
    uint64_t state[8], bytes = BLOCK;

    if (left == 0)
        return (Digest){self->empty[0], self->empty[1]};
    memcpy(state, self->begun, 64);
    for (; left > BLOCK; at += BLOCK, left -= BLOCK)
        blake_block(state, at, bytes += BLOCK, 0);
    memcpy(block, at, left);
    blake_block(state, block, bytes + left, 1);
    return (Digest){state[0], state[1]};
}

static int
is_key(PyObject *key)
{
    if (PyBytes_Check(key))
        return 1;
    PyErr_SetString(PyExc_TypeError, "keys is a sequence of bytes");
    return 0;
}

PyDoc_STRVAR(digests_doc,
"digests(secret, keys, /)\n--\n\n"
"For each key its BLAKE2b of 16 bytes, keyed with 16 secret bytes.");

static PyObject *
digests(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    PyObject *sequence, *made, *word;
    Hasher hasher;

    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "digests(secret: bytes, keys: sequence of bytes)");
        return NULL;
    }
    if (hasher_init(&hasher, arguments[0]) < 0)
        return NULL;
    if ((sequence = PySequence_Fast(arguments[1], "keys is a sequence of bytes")) == NULL)
        return NULL;
    made = PyList_New(PySequence_Fast_GET_SIZE(sequence));
    for (Py_ssize_t index = 0; made != NULL && index < PyList_GET_SIZE(made); index++) {
        word = NULL;
        if (is_key(PySequence_Fast_GET_ITEM(sequence, index)) &&
            (word = PyBytes_FromStringAndSize(NULL, 16)) != NULL) {
            const Digest digest = digest_of(&hasher, PySequence_Fast_GET_ITEM(sequence, index));
            for (int byte = 0; byte < 8; byte++) {
                PyBytes_AS_STRING(word)[byte] = (char)(digest.low >> 8 * byte);
                PyBytes_AS_STRING(word)[8 + byte] = (char)(digest.high >> 8 * byte);
            }
            PyList_SET_ITEM(made, index, word);
        }
        if (word == NULL)
            Py_CLEAR(made);
    }
    Py_DECREF(sequence);
    return made;
}

/* A set of digests: open addressing, 16 bytes a place, at most four of five places taken. Beyond a few thousand
   it is spread over 256 shelves by the first byte; each grows by half on its own, so that there is never a long
   pause, nor a moment in which all of it is there twice. */

#define LEAST_PLACES 64
#define MOST_UNSPREAD 8192
#define SHELVES 256

typedef struct {
    Digest *places;
    uint32_t capacity;
    uint32_t taken;
} Shelf;

typedef struct {
    PyObject_HEAD
    Hasher hasher;
    Shelf *shelves;
    int spread; /* over SHELVES; else there is one */
    size_t places;
    size_t size;
} Digests;

static inline Shelf *
shelf_of(Digests *self, Digest digest)
{
    return &self->shelves[self->spread ? digest.low >> 56 : 0];
}

/* Where a digest is in its shelf, or the free place where it would be. */
static inline Digest *
place_of(const Shelf *shelf, Digest digest)
{
    uint32_t at = (uint32_t)((digest.low >> 24 & 0xffffffff) * shelf->capacity >> 32);

    while (shelf->places[at].low != digest.low || shelf->places[at].high != digest.high) {
        if (shelf->places[at].low == 0 && shelf->places[at].high == 0)
            break;
        if (++at == shelf->capacity)
            at = 0;
    }
    return &shelf->places[at];
}

static int
shelf_grow(Digests *self, Shelf *shelf, uint32_t capacity)
{
    Shelf grown = {NULL, capacity, shelf->taken};

    if (capacity > shelf->capacity)
        grown.places = PyMem_Calloc(capacity, sizeof(Digest));
    if (grown.places == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (uint32_t at = 0; at < shelf->capacity; at++)
        if (shelf->places[at].low != 0 || shelf->places[at].high != 0)
            *place_of(&grown, shelf->places[at]) = shelf->places[at];
    PyMem_Free(shelf->places);
    self->places += capacity - shelf->capacity;
    *shelf = grown;
    return 0;
}

static void
forget(Digests *self)
{
    for (int shelf = 0; self->shelves != NULL && shelf < (self->spread ? SHELVES : 1); shelf++)
        PyMem_Free(self->shelves[shelf].places);
    PyMem_Free(self->shelves);
    self->shelves = NULL;
    self->spread = 0;
    self->size = self->places = 0;
}

static int digests_spread(Digests *self);

/* 1: it is new; 0: it was there; -1: no memory */
static int
digests_add(Digests *self, Digest digest)
{
    Shelf *shelf;
    Digest *place;

    if (digest.low == 0 && digest.high == 0)
        digest.high = 1;
    if (self->shelves == NULL && (self->shelves = PyMem_Calloc(1, sizeof(Shelf))) == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    shelf = shelf_of(self, digest);
    if (!self->spread && shelf->taken >= MOST_UNSPREAD) {
        if (digests_spread(self) < 0)
            return -1;
        shelf = shelf_of(self, digest);
    }
    if (shelf->taken >= shelf->capacity / 5 * 4) {
        const uint32_t grown = shelf->capacity + shelf->capacity / 2;
        if (shelf_grow(self, shelf, grown < LEAST_PLACES ? LEAST_PLACES : grown) < 0)
            return -1;
    }
    place = place_of(shelf, digest);
    if (place->low != 0 || place->high != 0)
        return 0;
    *place = digest;
    shelf->taken++;
    self->size++;
    return 1;
}

static int
digests_has(Digests *self, Digest digest)
{
    const Shelf *shelf;
    const Digest *place;

    if (digest.low == 0 && digest.high == 0)
        digest.high = 1;
    if (self->shelves == NULL || (shelf = shelf_of(self, digest))->capacity == 0)
        return 0;
    place = place_of(shelf, digest);
    return place->low != 0 || place->high != 0;
}

static int
digests_spread(Digests *self)
{
    Digests spread = *self;
    const Shelf *only = self->shelves;

    spread.spread = 1;
    spread.size = spread.places = 0;
    if ((spread.shelves = PyMem_Calloc(SHELVES, sizeof(Shelf))) == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (uint32_t at = 0; at < only->capacity; at++)
        if ((only->places[at].low != 0 || only->places[at].high != 0) &&
            digests_add(&spread, only->places[at]) < 0) {
            forget(&spread);
            return -1;
        }
    forget(self);
    self->shelves = spread.shelves;
    self->spread = 1;
    self->size = spread.size;
    self->places = spread.places;
    return 0;
}

PyDoc_STRVAR(fresh_doc,
"fresh(keys, /)\n--\n\n"
"Those keys whose digests were not there before, in order; now they are.");

static PyObject *
digests_fresh(Digests *self, PyObject *keys)
{
    PyObject *sequence = PySequence_Fast(keys, "keys is a sequence of bytes"), *found;
    int added = 0;

    if (sequence == NULL)
        return NULL;
    found = PyList_New(0);
    for (Py_ssize_t index = 0; found != NULL && index < PySequence_Fast_GET_SIZE(sequence); index++) {
        PyObject *key = PySequence_Fast_GET_ITEM(sequence, index);
        added = is_key(key) ? digests_add(self, digest_of(&self->hasher, key)) : -1;
        if (added < 0 || (added && PyList_Append(found, key) < 0))
            Py_CLEAR(found);
    }
    Py_DECREF(sequence);
    return found;
}

PyDoc_STRVAR(known_doc,
"known(keys, /)\n--\n\n"
"Those keys whose digests were there before, in order; nothing is added.");

static PyObject *
digests_known(Digests *self, PyObject *keys)
{
    PyObject *sequence = PySequence_Fast(keys, "keys is a sequence of bytes"), *found;

    if (sequence == NULL)
        return NULL;
    found = PyList_New(0);
    for (Py_ssize_t index = 0; found != NULL && index < PySequence_Fast_GET_SIZE(sequence); index++) {
        PyObject *key = PySequence_Fast_GET_ITEM(sequence, index);
        int there = is_key(key) ? digests_has(self, digest_of(&self->hasher, key)) : -1;
        if (there < 0 || (there && PyList_Append(found, key) < 0))
            Py_CLEAR(found);
    }
    Py_DECREF(sequence);
    return found;
}

PyDoc_STRVAR(clear_doc, "clear()\n--\n\nForgets everything, and gives back the memory.");

static PyObject *
digests_clear(Digests *self, PyObject *Py_UNUSED(nothing))
{
    forget(self);
    Py_RETURN_NONE;
}

static int
digests_init(Digests *self, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"secret", NULL};
    PyObject *secret;

    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "O:Digests", names, &secret))
        return -1;
    forget(self);
    return hasher_init(&self->hasher, secret);
}

static void
digests_dealloc(Digests *self)
{
    PyTypeObject *type = Py_TYPE(self);

    forget(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *
get_memory(Digests *self, void *Py_UNUSED(closure))
{
    return PyLong_FromSize_t(sizeof *self + self->places * sizeof(Digest) +
                             (self->spread ? SHELVES : 1) * sizeof(Shelf));
}

static PyObject *
get_size(Digests *self, void *Py_UNUSED(closure))
{
    return PyLong_FromSize_t(self->size);
}

static PyMethodDef digests_methods[] = {
    {"clear", (PyCFunction)digests_clear, METH_NOARGS, clear_doc},
    {"close", (PyCFunction)digests_clear, METH_NOARGS, clear_doc},
    {"fresh", (PyCFunction)digests_fresh, METH_O, fresh_doc},
    {"known", (PyCFunction)digests_known, METH_O, known_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef digests_attributes[] = {
    {"memory", (getter)get_memory, NULL, "The bytes that it takes.", NULL},
    {"size", (getter)get_size, NULL, "How many there are.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(digests_type_doc,
"Digests(secret)\n--\n\n"
"A set of the digests of keys, keyed with 16 secret bytes.");

static PyType_Slot digests_slots[] = {
    {Py_tp_doc, (void *)digests_type_doc},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_init, digests_init},
    {Py_tp_dealloc, digests_dealloc},
    {Py_tp_methods, digests_methods},
    {Py_tp_getset, digests_attributes},
    {0, NULL},
};

static PyType_Spec digests_spec = {
    .name = "oneatatime._compiled.Digests",
    .basicsize = sizeof(Digests),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = digests_slots,
};

static PyMethodDef functions[] = {
    {"alike", (PyCFunction)(void (*)(void))alike, METH_FASTCALL, alike_doc},
    {"by_slot", (PyCFunction)by_slot, METH_O, by_slot_doc},
    {"buffers", (PyCFunction)(void (*)(void))buffers, METH_FASTCALL, buffers_doc},
    {"commands", (PyCFunction)(void (*)(void))commands, METH_FASTCALL, commands_doc},
    {"digests", (PyCFunction)(void (*)(void))digests, METH_FASTCALL, digests_doc},
    {"fields", (PyCFunction)fields, METH_O, fields_doc},
    {"keyslot", (PyCFunction)keyslot, METH_O, keyslot_doc},
    {"lengths", (PyCFunction)lengths, METH_O, lengths_doc},
    {"rows", (PyCFunction)rows, METH_O, rows_doc},
    {"size_of", (PyCFunction)size_of, METH_O, size_of_doc},
    {"slot_commands", (PyCFunction)(void (*)(void))slot_commands, METH_FASTCALL, slot_commands_doc},
    {"slot_runs", (PyCFunction)slot_runs, METH_O, slot_runs_doc},
    {"texts", (PyCFunction)(void (*)(void))texts, METH_FASTCALL, texts_doc},
    {"words_of", (PyCFunction)(void (*)(void))words_of, METH_FASTCALL, words_of_doc},
    {"writes", (PyCFunction)(void (*)(void))writes, METH_FASTCALL, writes_doc},
    {NULL, NULL, 0, NULL},
};

static int
execute(PyObject *module)
{
    PyType_Spec *specs[] = {&spec, &digests_spec};

    for (size_t index = 0; index < sizeof specs / sizeof *specs; index++) {
        PyObject *type = PyType_FromModuleAndSpec(module, specs[index], NULL);
        int added = type != NULL ? PyModule_AddType(module, (PyTypeObject *)type) : -1;
        Py_XDECREF(type);
        if (added < 0)
            return -1;
    }
    fill_base64_values();
    fill_crc_table();
    return 0;
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
