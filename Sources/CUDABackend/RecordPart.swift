import CKernelSources
import KVQuantization

/// Places of the values and scales of one part of a tile (keys, values, latents or rotary keys), token after token.
struct RecordPart: Sendable {
  private let recipe: KVRecipe
  private let dimension: Int
  private let scaleCount: Int
  /// Bytes from the start of the tile.
  private let codeOffset: Int
  private let scaleOffset: Int
  /// [16, dimension] byte of the code, or of the 16-bit unit that holds it.
  private let codeByte: [Int32]
  /// [16, dimension] slot within the unit; 0 for whole bytes.
  private let codeSlot: [UInt8]
  /// [16, scaleCount]
  private let scaleByte: [Int32]
  /// [slot, code] bits of a unit.
  private let unitBits: [UInt16]

  /// - Parameters:
  ///   - position: nibble_kernels.h's place of a value: recipe, dimension, token of the tile, value.
  ///   - scale: its place of a block scale: recipe, dimension, token, block.
  init(
    recipe: KVRecipe, dimension: Int, codeOffset: Int32, scaleOffset: Int32,
    position: (Int32, Int32, Int32, Int32) -> nb_position, scale: (Int32, Int32, Int32, Int32) -> Int32
  ) {
    let scaleCount = recipe.scaleBytes(dimension: dimension)
    var codeByte: [Int32] = []
    var codeSlot: [UInt8] = []
    var scaleByte: [Int32] = []
    for token in 0..<NB_TILE_TOKENS {
      for d in 0..<Int32(dimension) {
        let place = position(recipe.rawValue, Int32(dimension), token, d)
        codeByte.append(place.byte)
        codeSlot.append(UInt8(place.slot))
      }
      for block in 0..<Int32(scaleCount) { scaleByte.append(scale(recipe.rawValue, Int32(dimension), token, block)) }
    }
    self.recipe = recipe
    self.dimension = dimension
    self.scaleCount = scaleCount
    self.codeOffset = Int(codeOffset)
    self.scaleOffset = Int(scaleOffset)
    self.codeByte = codeByte
    self.codeSlot = codeSlot
    self.scaleByte = scaleByte
    unitBits =
      recipe.codeBits == 4
      ? (0..<Int32(64)).map { nb_unit_pack(recipe.rawValue, $0 / 16, $0 % 16) } : [UInt16](repeating: 0, count: 64)
  }

  /// Writes one canonical row into a tile.
  /// - Parameter row: token of the tile, 0 to 15.
  func scatter(
    codes: UnsafePointer<UInt8>, scales: UnsafePointer<UInt8>, row: Int, into tile: UnsafeMutablePointer<UInt8>
  ) {
    let target = tile + codeOffset
    let first = row * dimension
    switch recipe.codeBits {
    case 4:
      for d in 0..<dimension {
        let slot = Int(codeSlot[first + d]) * 16
        let code = Int(d % 2 == 0 ? codes[d / 2] & 15 : codes[d / 2] >> 4)
        let bits = unitBits[slot + code]
        let mask = unitBits[slot + 15]
        let unit = target + Int(codeByte[first + d])
        unit[0] = unit[0] & ~UInt8(truncatingIfNeeded: mask) | UInt8(truncatingIfNeeded: bits)
        unit[1] = unit[1] & ~UInt8(truncatingIfNeeded: mask >> 8) | UInt8(truncatingIfNeeded: bits >> 8)
      }
    case 8: for d in 0..<dimension { target[Int(codeByte[first + d])] = codes[d] }
    default:
      for d in 0..<dimension {
        let place = target + Int(codeByte[first + d])
        place[0] = codes[2 * d]
        place[1] = codes[2 * d + 1]
      }
    }
    for block in 0..<scaleCount {
      tile[scaleOffset + Int(scaleByte[row * scaleCount + block])] = scales[block]
    }
  }

  /// Reads one canonical row from a tile; the inverse of `scatter`.
  func gather(
    row: Int, from tile: UnsafePointer<UInt8>, codes: UnsafeMutablePointer<UInt8>, scales: UnsafeMutablePointer<UInt8>
  ) {
    let source = tile + codeOffset
    let first = row * dimension
    switch recipe.codeBits {
    case 4:
      for d in 0..<dimension {
        let unit = source + Int(codeByte[first + d])
        let bits = UInt16(unit[0]) | UInt16(unit[1]) << 8
        let code = UInt8(truncatingIfNeeded: nb_unit_unpack(recipe.rawValue, Int32(codeSlot[first + d]), bits))
        codes[d / 2] = d % 2 == 0 ? code : codes[d / 2] | code << 4
      }
    case 8: for d in 0..<dimension { codes[d] = source[Int(codeByte[first + d])] }
    default:
      for d in 0..<dimension {
        let place = source + Int(codeByte[first + d])
        codes[2 * d] = place[0]
        codes[2 * d + 1] = place[1]
      }
    }
    for block in 0..<scaleCount {
      scales[block] = tile[scaleOffset + Int(scaleByte[row * scaleCount + block])]
    }
  }
}
