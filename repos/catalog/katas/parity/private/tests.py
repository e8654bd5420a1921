def test_1(f):
    assert f(2) == 'even'


def test_2(f):
    assert f(3) == 'odd'


def test_3(f):
    assert f(0) == 'even'


def test_4(f):
    assert f(-1) == 'odd'
