/* The thin skin of a stream, compiled: what one item costs beyond itself. `_loop.py` has the same in Python.

   `Skin.__anext__` gives a `Step`. Awaited, it takes the next of `items`; when they have run out it awaits
   `refill()`, a coroutine of the subclass, which also says by `failed(error)` what is raised where an item fails. Nothing is taken before it is awaited, so a step that is dropped
   or cancelled early loses nothing. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

typedef struct {
    PyObject_HEAD
    PyObject *items; /* an iterator */
} Skin;

typedef struct {
    PyObject_HEAD
    Skin *skin;
    PyObject *refill; /* the coroutine that is awaited, where the items had run out */
    int over;
} Step; /* known to the collector from when it awaits on: before, it costs too little to be asked about */

static PyTypeObject StepType;
static PyObject *name_refill, *name_failed, *name_throw, *name_close;

/* Step */

/* Nothing is held any more by what is over: an exception may hold the frame that holds it. */
static void
end(Step *self)
{
    self->over = 1;
    Py_CLEAR(self->refill);
}

/* What an item failed with becomes what `failed` makes of it. */
static void
tell_of_failure(Skin *skin)
{
    PyObject *kind, *error, *trace, *told;

    PyErr_Fetch(&kind, &error, &trace);
    PyErr_NormalizeException(&kind, &error, &trace);
    if (trace != NULL)
        PyException_SetTraceback(error, trace);
    told = PyObject_CallMethodOneArg((PyObject *)skin, name_failed, error);
    if (told != NULL && PyExceptionInstance_Check(told))
        PyErr_SetObject((PyObject *)Py_TYPE(told), told);
    else if (told != NULL)
        PyErr_SetString(PyExc_TypeError, "failed() gives an exception");
    Py_XDECREF(told);
    Py_XDECREF(kind);
    Py_XDECREF(error);
    Py_XDECREF(trace);
}

static PySendResult
step_send(PyObject *object, PyObject *argument, PyObject **result)
{
    Step *self = (Step *)object;
    PyObject *refill;
    PySendResult sent;

    if (self->over) {
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited step of a stream");
        *result = NULL;
        return PYGEN_ERROR;
    }
    if (self->refill == NULL) {
        PyObject *items = self->skin->items;
        if (items != NULL) {
            Py_INCREF(items); /* whatever runs meanwhile may set others */
            *result = Py_TYPE(items)->tp_iternext(items);
            Py_DECREF(items);
            if (*result != NULL) {
                self->over = 1;
                return PYGEN_RETURN;
            }
            if (PyErr_Occurred()) {
                if (!PyErr_ExceptionMatches(PyExc_StopIteration)) {
                    self->over = 1;
                    tell_of_failure(self->skin);
                    return PYGEN_ERROR;
                }
                PyErr_Clear();
            }
        }
        *result = NULL;
        refill = PyObject_CallMethodNoArgs((PyObject *)self->skin, name_refill);
        if (refill == NULL || self->refill != NULL) { /* who else awaits it was quicker */
            self->over = 1;
            if (refill != NULL)
                PyErr_SetString(PyExc_RuntimeError, "a step of a stream is being awaited already");
            Py_XDECREF(refill);
            return PYGEN_ERROR;
        }
        self->refill = refill;
        PyObject_GC_Track(self);
    }
    refill = Py_NewRef(self->refill); /* who awaits it at the same time ends this step from within */
    sent = PyIter_Send(refill, argument, result);
    Py_DECREF(refill);
    if (sent != PYGEN_NEXT)
        end(self);
    return sent;
}

static PyObject *
returned(PySendResult sent, PyObject *result)
{
    if (sent == PYGEN_RETURN) { /* to who speaks the protocol of iterators */
        PyObject *stop = PyObject_CallOneArg(PyExc_StopIteration, result);
        Py_DECREF(result);
        if (stop != NULL) {
            PyErr_SetObject(PyExc_StopIteration, stop);
            Py_DECREF(stop);
        }
        return NULL;
    }
    return sent == PYGEN_NEXT ? result : NULL;
}

static PyObject *
step_iternext(PyObject *self)
{
    PyObject *result;
    PySendResult sent = step_send(self, Py_None, &result);
    return returned(sent, result);
}

static PyObject *
step_send_method(PyObject *self, PyObject *argument)
{
    PyObject *result;
    PySendResult sent = step_send(self, argument, &result);
    return returned(sent, result);
}

static PyObject *
call_refill(Step *self, PyObject *name, PyObject *arguments)
{
    PyObject *method = PyObject_GetAttr(self->refill, name), *result = NULL; /* holds what it is of */

    if (method != NULL) {
        result = arguments != NULL ? PyObject_Call(method, arguments, NULL) : PyObject_CallNoArgs(method);
        Py_DECREF(method);
    }
    return result;
}

static PyObject *
step_throw(PyObject *object, PyObject *arguments)
{
    Step *self = (Step *)object;
    PyObject *result, *kind, *value = NULL, *trace = NULL;

    if (self->refill != NULL) {
        result = call_refill(self, name_throw, arguments);
        if (result == NULL)
            end(self);
        return result;
    }
    self->over = 1; /* it was not awaited yet, so there is nothing to end */
    if (!PyArg_UnpackTuple(arguments, "throw", 1, 3, &kind, &value, &trace))
        return NULL;
    if (PyExceptionInstance_Check(kind))
        PyErr_SetObject((PyObject *)Py_TYPE(kind), kind);
    else if (PyExceptionClass_Check(kind))
        PyErr_SetObject(kind, value);
    else
        PyErr_SetString(PyExc_TypeError, "exceptions must be classes or instances deriving from BaseException");
    return NULL;
}

static PyObject *
step_close(PyObject *object, PyObject *Py_UNUSED(nothing))
{
    Step *self = (Step *)object;

    PyObject *closed = NULL;

    if (self->refill == NULL)
        closed = Py_NewRef(Py_None);
    else
        closed = call_refill(self, name_close, NULL);
    end(self);
    return closed;
}

static int
step_traverse(PyObject *object, visitproc visit, void *arg)
{
    Py_VISIT(((Step *)object)->skin);
    Py_VISIT(((Step *)object)->refill);
    return 0;
}

static int
step_clear(PyObject *object)
{
    Step *self = (Step *)object;

    self->over = 1;
    Py_CLEAR(self->refill);
    Py_CLEAR(self->skin);
    return 0;
}

static void
step_dealloc(PyObject *object)
{
    PyObject_GC_UnTrack(object);
    step_clear(object);
    PyObject_GC_Del(object);
}

static PyMethodDef step_methods[] = {
    {"send", step_send_method, METH_O, NULL},
    {"throw", step_throw, METH_VARARGS, NULL},
    {"close", step_close, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyAsyncMethods step_as_async = {
    .am_await = PyObject_SelfIter,
    .am_send = step_send,
};

static PyTypeObject StepType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "oneatatime._skin.Step",
    .tp_basicsize = sizeof(Step),
    .tp_dealloc = step_dealloc,
    .tp_as_async = &step_as_async,
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_traverse = step_traverse,
    .tp_clear = step_clear,
    .tp_iter = PyObject_SelfIter,
    .tp_iternext = step_iternext,
    .tp_methods = step_methods,
};

/* Skin */

static PyObject *
skin_anext(PyObject *self)
{
    Step *step = PyObject_GC_New(Step, &StepType);

    if (step != NULL) {
        Py_INCREF(self);
        step->skin = (Skin *)self;
        step->refill = NULL;
        step->over = 0;
    }
    return (PyObject *)step;
}

static int
skin_set_items(PyObject *object, PyObject *items, void *Py_UNUSED(closure))
{
    Skin *self = (Skin *)object;

    if (items == NULL || !PyIter_Check(items)) {
        PyErr_SetString(PyExc_TypeError, "items is an iterator");
        return -1;
    }
    Py_INCREF(items);
    Py_XSETREF(self->items, items);
    return 0;
}

static PyObject *
skin_get_items(PyObject *object, void *Py_UNUSED(closure))
{
    Skin *self = (Skin *)object;

    if (self->items == NULL) {
        PyErr_SetString(PyExc_AttributeError, "items");
        return NULL;
    }
    return Py_NewRef(self->items);
}

static int
skin_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(((Skin *)self)->items);
    return 0;
}

static int
skin_clear(PyObject *self)
{
    Py_CLEAR(((Skin *)self)->items);
    return 0;
}

static void
skin_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    skin_clear(self);
    Py_TYPE(self)->tp_free(self);
}

static PyGetSetDef skin_attributes[] = {
    {"items", skin_get_items, skin_set_items, "The iterator over what is at hand.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(failed_doc,
"failed(error, /)\n--\n\n"
"What is raised where making an item failed with `error`.");

static PyObject *
skin_failed(PyObject *Py_UNUSED(self), PyObject *error)
{
    return Py_NewRef(error);
}

static PyMethodDef skin_methods[] = {
    {"failed", skin_failed, METH_O, failed_doc},
    {NULL, NULL, 0, NULL},
};

static PyAsyncMethods skin_as_async = {
    .am_aiter = PyObject_SelfIter,
    .am_anext = skin_anext,
};

static PyTypeObject SkinType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "oneatatime._skin.Skin",
    .tp_doc = "An async iterator over `items`, and over what the coroutine `refill()` gives when they have run out.",
    .tp_basicsize = sizeof(Skin),
    .tp_dealloc = skin_dealloc,
    .tp_as_async = &skin_as_async,
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .tp_traverse = skin_traverse,
    .tp_clear = skin_clear,
    .tp_getset = skin_attributes,
    .tp_methods = skin_methods,
    .tp_new = PyType_GenericNew,
};

PyDoc_STRVAR(made_doc,
"made(make, raw, /)\n--\n\n"
"What `make` makes of `raw`, or `raw` itself where `make` is None.");

static PyObject *
made(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "made(make, raw)");
        return NULL;
    }
    return arguments[0] == Py_None ? Py_NewRef(arguments[1]) : PyObject_CallOneArg(arguments[0], arguments[1]);
}

static PyMethodDef functions[] = {
    {"made", (PyCFunction)(void (*)(void))made, METH_FASTCALL, made_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "oneatatime._skin",
    .m_doc = "The thin skin of a stream, compiled.",
    .m_size = -1,
    .m_methods = functions,
};

PyMODINIT_FUNC
PyInit__skin(void)
{
    PyObject *created;

    if ((name_refill = PyUnicode_InternFromString("refill")) == NULL
        || (name_failed = PyUnicode_InternFromString("failed")) == NULL
        || (name_throw = PyUnicode_InternFromString("throw")) == NULL
        || (name_close = PyUnicode_InternFromString("close")) == NULL
        || PyType_Ready(&StepType) < 0)
        return NULL;
    created = PyModule_Create(&module);
    if (created != NULL && PyModule_AddType(created, &SkinType) < 0)
        Py_CLEAR(created);
    return created;
}
