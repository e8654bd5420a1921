def test_1(f):
    assert f('hello') == 2


def test_2(f):
    assert f('') == 0


def test_3(f):
    assert f('xyz') == 0


def test_4(f):
    assert f('aeiou') == 5


def test_5(f):
    assert f('banana') == 3
