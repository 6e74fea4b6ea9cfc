# packages.sh: downloads Debian packages and unpacks them into a folder, without installing them. Other scripts source it.
#
#   packages_known NAME      makes sure that apt-get knows the package NAME: if not, downloads lists of packages into ./state
#   packages_fetch NAME...   downloads the packages into the current folder and unpacks them into ./root; errors are in ./log
# shellcheck shell=sh

packages_lists=

packages_apt() { # apt-get with short timeouts; it uses the lists of packages_known if there are some
    apt-get -q -o Acquire::Retries=0 -o Acquire::http::Timeout=8 -o Acquire::https::Timeout=8 \
        -o APT::Sandbox::User= -o Debug::NoLocking=1 ${packages_lists:+"$packages_lists"} "$@"
}

packages_known() { # NAME
    if apt-cache show "$1" > /dev/null 2>&1; then return 0; fi
    mkdir -p state/lists/partial
    packages_lists=-oDir::State::Lists=$PWD/state/lists
    packages_apt update > log 2>&1
}

packages_fetch() { # NAME...
    for package; do
        packages_apt download "$package" > log 2>&1 && dpkg-deb -x "$package"_*.deb root || return 1
    done
}
