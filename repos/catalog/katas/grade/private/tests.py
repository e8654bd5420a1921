def test_1(f):
    assert f(50) == 'pass'


def test_2(f):
    assert f(49) == 'fail'


def test_3(f):
    assert f(0) == 'fail'


def test_4(f):
    assert f(100) == 'pass'


def test_5(f):
    assert f(75) == 'pass'
