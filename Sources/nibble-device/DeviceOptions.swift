/// The command line of nibble-device.
struct DeviceOptions {
  var filters: [String] = []
  var isQuick = false
  var listsOnly = false
  var jsonOnly = false
  var showsHelp = false
  var device = 0
  /// Other cuts of contexts than the program's own, to time them.
  var splitTarget: Int?
  var splitTokens: Int?

  enum Failure: Error, CustomStringConvertible {
    case unknownOption(String)
    case missingValue(String)
    case notANumber(option: String, value: String)
    case nothingMatches([String])

    var description: String {
      switch self {
      case .unknownOption(let option): "unknown option '\(option)'; expected one of those below"
      case .missingValue(let option): "\(option) needs a value"
      case .notANumber(let option, let value): "\(option) needs a number from 0, found '\(value)'"
      case .nothingMatches(let filters):
        "no case has \(filters.map { "'\($0)'" }.joined(separator: " or ")) in its name; --list prints all names"
      }
    }
  }

  static let help = """
    usage: nibble-device [--filter TEXT]... [--quick] [--list] [--json-only] [--device N] [--split-tokens N] [--split-target N]
      --filter TEXT  only cases with TEXT in their name; the parts of TEXT between '+' must all be there; may be repeated
      --quick        a small grid and short timings
      --list         print the names of the cases and stop; needs no GPU
      --json-only    no table at the end
      --device N     GPU number, 0 unless told
      --split-tokens N, --split-target N
                     in timings of decode attention: the shortest split, and how many a long request is to have
    One JSON line a case on stdout. Exit: 0 all passed, 1 a case failed, 64 usage, 69 no usable GPU.
    """

  init(_ arguments: [String]) throws(Failure) {
    var rest = arguments[...]
    while let option = rest.popFirst() {
      switch option {
      case "--quick": isQuick = true
      case "--list": listsOnly = true
      case "--json-only": jsonOnly = true
      case "--help", "-h": showsHelp = true
      case "--filter":
        guard let value = rest.popFirst() else { throw .missingValue(option) }
        filters.append(value)
      case "--device", "--split-tokens", "--split-target":
        guard let value = rest.popFirst() else { throw .missingValue(option) }
        guard let number = Int(value), number >= 0 else { throw .notANumber(option: option, value: value) }
        switch option {
        case "--device": device = number
        case "--split-tokens": splitTokens = number
        default: splitTarget = number
        }
      default: throw .unknownOption(option)
      }
    }
  }

  func matches(_ name: String) -> Bool {
    filters.isEmpty || filters.contains { $0.split(separator: "+").allSatisfy { name.contains($0) } }
  }
}
