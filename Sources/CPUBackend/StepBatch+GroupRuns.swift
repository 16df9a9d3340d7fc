import Operators

/// Consecutive tokens of one sequence in one group of 16 slots of a page, the unit in which page records interleave tokens.
struct GroupRun {
  let rows: Range<Int>
  let page: Int
  /// The first row's slot in the page.
  let slot: Int

  /// The part of the run that lies in some rows; nil if there is none.
  func part(in other: Range<Int>) -> GroupRun? {
    let part = rows.clamped(to: other)
    return part.isEmpty ? nil : GroupRun(rows: part, page: page, slot: slot + part.lowerBound - rows.lowerBound)
  }
}

extension StepBatch {
  /// Cuts the rows into such runs.
  func groupRuns(pageSize: Int, into runs: inout [GroupRun]) {
    runs.removeAll(keepingCapacity: true)
    for sequence in 0..<sequenceCount {
      var row = Int(queryOffsets[sequence])
      let end = Int(queryOffsets[sequence + 1])
      while row < end {
        let position = Int(positions[row])
        let next = min(end, row + 16 - position % 16)
        let page = pageTables[Int(pageTableOffsets[sequence]) + position / pageSize]
        runs.append(GroupRun(rows: row..<next, page: Int(page), slot: position % pageSize))
        row = next
      }
    }
  }
}
