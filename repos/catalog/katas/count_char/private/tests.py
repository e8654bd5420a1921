def test_1(f):
    assert f('banana', 'a') == 3


def test_2(f):
    assert f('banana', 'x') == 0


def test_3(f):
    assert f('', 'a') == 0


def test_4(f):
    assert f('aaa', 'a') == 3


def test_5(f):
    assert f('hello', 'l') == 2
