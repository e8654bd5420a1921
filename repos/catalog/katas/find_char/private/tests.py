def test_1(f):
    assert f('hello', 'l') == 2


def test_2(f):
    assert f('hello', 'h') == 0


def test_3(f):
    assert f('hello', 'x') == -1


def test_4(f):
    assert f('', 'a') == -1
